// librdkafka's handles, owned.
#pragma once

#include <librdkafka/rdkafka.h>

#include <cstddef>
#include <memory>
#include <span>

namespace kavach::sink {

template <auto Destroy>
struct KafkaDestroyer {
  template <typename T>
  void operator()(T* handle) const noexcept {
    Destroy(handle);
  }
};

using KafkaClient = std::unique_ptr<rd_kafka_t, KafkaDestroyer<rd_kafka_destroy>>;
using KafkaTopicHandle = std::unique_ptr<rd_kafka_topic_t, KafkaDestroyer<rd_kafka_topic_destroy>>;
using KafkaMetadata = std::unique_ptr<const rd_kafka_metadata_t, KafkaDestroyer<rd_kafka_metadata_destroy>>;
using PartitionList =
    std::unique_ptr<rd_kafka_topic_partition_list_t, KafkaDestroyer<rd_kafka_topic_partition_list_destroy>>;

// Empty, with room for `size`.
inline PartitionList make_list(std::size_t size) {
  return PartitionList(rd_kafka_topic_partition_list_new(static_cast<int>(size)));
}

inline std::span<rd_kafka_topic_partition_t> elements_of(rd_kafka_topic_partition_list_t& list) noexcept {
  return {list.elems, static_cast<std::size_t>(list.cnt)};
}

}  // namespace kavach::sink
