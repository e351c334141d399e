// Topics: makes the topics that are missing, as `kavachd topics create` does.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/result.h"
#include "sink/kafka/client.h"

namespace kavach::sink {

struct TopicPlan {
  std::string name;
  int partitions = 1;
  int replication = -1;  // -1: the broker's default
  std::int64_t retention_ms = 0;
  std::int64_t record_bytes_max = 0;  // 0: the broker's default
};

struct TopicOutcome {
  std::string name;
  bool created = false;  // false: it was there, and stays as it is
};

// Blocks for half a minute at most. Fails with what the brokers say of the first topic that cannot be made;
// the others may have been.
Result<std::vector<TopicOutcome>> create_topics(const KafkaOptions& options,
                                                std::span<const TopicPlan> topics);

}  // namespace kavach::sink
