// TopicReader: reads what a topic has from a moment on up to its end, of all partitions, and leaves no trace:
// no group is joined, nothing is committed.
//
// One thread. Calls block; brokers that say nothing for `timeout_us` are a failure.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/clock.h"
#include "engine/result.h"
#include "sink/kafka/client.h"
#include "sink/writer/consumer.h"

namespace kavach::sink {

// Records of a partition: from `begin` to the one before `end`.
struct TopicSlice {
  std::int32_t partition = 0;
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

class TopicReader {
 public:
  static Result<std::unique_ptr<TopicReader>> create(const KafkaOptions& options, std::string topic,
                                                     std::int64_t timeout_us);
  ~TopicReader();

  // What there is now from the first record with a timestamp of `since` or later on; a record behind it may
  // be older. A topic that is missing has no partitions.
  Result<std::vector<TopicSlice>> locate(WallMicros since);
  // Calls `each` for every record of the slices, in the order of each partition.
  Status read(std::span<const TopicSlice> slices,
              const std::function<void(const ConsumedRecord& record)>& each);

 private:
  struct Impl;
  explicit TopicReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kavach::sink
