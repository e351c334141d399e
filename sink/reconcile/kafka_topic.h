// KafkaTopic: the events' topic and that of the dead letters as a place to compare.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sink/kafka/topic_reader.h"
#include "sink/reconcile/reconcile.h"

namespace kavach::sink {

struct KafkaTopicOptions {
  KafkaOptions kafka;
  std::string topic;
  std::string dead_letter_topic;
  WallMicros keeps_since = 0;  // records of before may have gone: what the topic's retention says
  std::int64_t timeout_us = 30 * kMicrosPerSecond;
};

class KafkaTopic final : public TopicPlace {
 public:
  // How far the writers came with a topic.
  using FindPositions = std::function<Result<std::vector<PartitionPosition>>(const std::string& topic)>;

  // The failure: a setting. No broker has to be there yet.
  static Result<std::unique_ptr<KafkaTopic>> create(const KafkaTopicOptions& options,
                                                    FindPositions find_positions);

  Status note_position(const Period& period) override;
  WallMicros keeps_since() const override { return options_.keeps_since; }
  Result<std::uint64_t> read(const Period& period, const FoundVisitor& each) override;
  Result<std::uint64_t> read_letters(const Period& period, const FoundVisitor& each) override;

 private:
  KafkaTopic(const KafkaTopicOptions& options, FindPositions find_positions)
      : options_(options), find_positions_(std::move(find_positions)) {}
  Result<std::uint64_t> read(TopicReader& reader, const std::vector<TopicSlice>& slices, const Period& period,
                             const FoundVisitor& each) const;

  const KafkaTopicOptions options_;
  const FindPositions find_positions_;
  std::unique_ptr<TopicReader> events_, letters_;
  std::vector<TopicSlice> slices_;
  std::map<std::int32_t, std::int64_t> next_offsets_;  // the writers', by partition
};

}  // namespace kavach::sink
