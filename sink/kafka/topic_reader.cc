#include "sink/kafka/topic_reader.h"

#include <fmt/format.h>
#include <librdkafka/rdkafka.h>

#include <algorithm>
#include <map>
#include <utility>

namespace kavach::sink {
namespace {

// librdkafka wants a name where consumers are made; no such group ever has a member.
constexpr const char* kGroup = "kavach-reconcile";
// Fetched ahead of what is read, at most.
constexpr const char* kFetchedKiBMax = "16384";
constexpr int kErrorBytes = 512;

struct DestroyClient {
  void operator()(rd_kafka_t* client) const noexcept { rd_kafka_destroy(client); }
};
struct DestroyList {
  void operator()(rd_kafka_topic_partition_list_t* list) const noexcept {
    rd_kafka_topic_partition_list_destroy(list);
  }
};
using PartitionList = std::unique_ptr<rd_kafka_topic_partition_list_t, DestroyList>;
struct DestroyTopic {
  void operator()(rd_kafka_topic_t* topic) const noexcept { rd_kafka_topic_destroy(topic); }
};
struct DestroyMetadata {
  void operator()(const rd_kafka_metadata_t* metadata) const noexcept { rd_kafka_metadata_destroy(metadata); }
};

PartitionList make_list(std::size_t size) {
  return PartitionList(rd_kafka_topic_partition_list_new(static_cast<int>(size)));
}

std::span<rd_kafka_topic_partition_t> elements_of(const PartitionList& list) {
  return {list->elems, static_cast<std::size_t>(list->cnt)};
}

}  // namespace

struct TopicReader::Impl {
  std::string topic;
  int timeout_ms = 0;
  std::unique_ptr<rd_kafka_t, DestroyClient> client;

  Failure failed(std::string_view what, rd_kafka_resp_err_t code) const {
    return passing_failure(fmt::format("topic {}: {}: {}", topic, what, rd_kafka_err2str(code)));
  }
  Result<std::vector<std::int32_t>> partitions() const;
};

TopicReader::TopicReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TopicReader::~TopicReader() {
  if (impl_->client != nullptr) rd_kafka_consumer_close(impl_->client.get());
}

Result<std::unique_ptr<TopicReader>> TopicReader::create(const KafkaOptions& options, std::string topic,
                                                         std::int64_t timeout_us) {
  auto conf = consumer_conf(options, kGroup);
  if (!conf) return conf.error();
  for (const auto& [name, value] : {std::pair("enable.partition.eof", "true"),
                                    // What went meanwhile, goes: read on with what is left.
                                    std::pair("auto.offset.reset", "earliest"),
                                    std::pair("queued.max.messages.kbytes", kFetchedKiBMax)}) {
    rd_kafka_conf_set(conf->get(), name, value, nullptr, 0);
  }
  auto impl = std::make_unique<Impl>();
  impl->topic = std::move(topic);
  impl->timeout_ms = static_cast<int>(timeout_us / kMicrosPerMilli);
  char error[kErrorBytes];
  impl->client.reset(rd_kafka_new(RD_KAFKA_CONSUMER, conf->get(), error, sizeof(error)));
  if (impl->client == nullptr) return failure(std::string("cannot make the Kafka client: ") + error);
  static_cast<void>(conf->release());  // rd_kafka_new() has taken it
  rd_kafka_poll_set_consumer(impl->client.get());
  return std::unique_ptr<TopicReader>(new TopicReader(std::move(impl)));
}

Result<std::vector<std::int32_t>> TopicReader::Impl::partitions() const {
  const std::unique_ptr<rd_kafka_topic_t, DestroyTopic> handle(
      rd_kafka_topic_new(client.get(), topic.c_str(), nullptr));
  const rd_kafka_metadata_t* found = nullptr;
  const rd_kafka_resp_err_t code = rd_kafka_metadata(client.get(), 0, handle.get(), &found, timeout_ms);
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return failed("cannot ask the brokers", code);
  const std::unique_ptr<const rd_kafka_metadata_t, DestroyMetadata> metadata(found);
  const rd_kafka_metadata_topic& described = metadata->topics[0];
  std::vector<std::int32_t> ids;
  if (described.err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) return ids;
  if (described.err != RD_KAFKA_RESP_ERR_NO_ERROR) return failed("cannot be read", described.err);
  for (int i = 0; i < described.partition_cnt; ++i) ids.push_back(described.partitions[i].id);
  return ids;
}

Result<std::vector<TopicSlice>> TopicReader::locate(WallMicros since) {
  rd_kafka_t* const client = impl_->client.get();
  const auto partitions = impl_->partitions();
  if (!partitions) return partitions.error();
  std::vector<TopicSlice> slices;
  if (partitions->empty()) return slices;
  const PartitionList begins = make_list(partitions->size());
  for (const std::int32_t partition : *partitions) {
    rd_kafka_topic_partition_list_add(begins.get(), impl_->topic.c_str(), partition)->offset =
        since / kMicrosPerMilli;
  }
  rd_kafka_resp_err_t code = rd_kafka_offsets_for_times(client, begins.get(), impl_->timeout_ms);
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return impl_->failed("cannot ask where to begin", code);
  for (const rd_kafka_topic_partition_t& at : elements_of(begins)) {
    if (at.err != RD_KAFKA_RESP_ERR_NO_ERROR) return impl_->failed("cannot ask where to begin", at.err);
    std::int64_t low = 0;
    std::int64_t high = 0;
    code = rd_kafka_query_watermark_offsets(client, at.topic, at.partition, &low, &high, impl_->timeout_ms);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return impl_->failed("cannot ask how much there is", code);
    // Negative: no record is so late.
    slices.push_back({at.partition, at.offset < 0 ? high : at.offset, high});
  }
  return slices;
}

Status TopicReader::read(std::span<const TopicSlice> slices,
                         const std::function<void(const ConsumedRecord& record)>& each) {
  rd_kafka_t* const client = impl_->client.get();
  std::map<std::int32_t, std::int64_t> ends;  // of the partitions that are not read yet
  const PartitionList assigned = make_list(slices.size());
  for (const TopicSlice& slice : slices) {
    if (slice.begin >= slice.end) continue;
    ends.emplace(slice.partition, slice.end);
    rd_kafka_topic_partition_list_add(assigned.get(), impl_->topic.c_str(), slice.partition)->offset =
        slice.begin;
  }
  if (ends.empty()) return {};
  if (const auto code = rd_kafka_assign(client, assigned.get()); code != RD_KAFKA_RESP_ERR_NO_ERROR)
    return impl_->failed("cannot be read", code);

  const auto finish = [&](std::int32_t partition) {
    if (ends.erase(partition) == 0) return;
    // What comes behind the end is not wanted, and would only be fetched.
    const PartitionList one = make_list(1);
    rd_kafka_topic_partition_list_add(one.get(), impl_->topic.c_str(), partition);
    rd_kafka_pause_partitions(client, one.get());
  };
  while (!ends.empty()) {
    rd_kafka_message_t* const message = rd_kafka_consumer_poll(client, impl_->timeout_ms);
    if (message == nullptr)
      return passing_failure("topic " + impl_->topic + ": the brokers stopped answering");
    const ConsumedRecord record(message);
    // The end may lie behind the last record: offsets have gaps.
    if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
      finish(message->partition);
      continue;
    }
    if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) return impl_->failed("cannot be read", message->err);
    const auto end = ends.find(record.partition());
    if (end == ends.end()) continue;
    if (record.offset() < end->second) each(record);
    if (record.offset() + 1 >= end->second) finish(record.partition());
  }
  if (const auto code = rd_kafka_assign(client, nullptr); code != RD_KAFKA_RESP_ERR_NO_ERROR)
    return impl_->failed("cannot be left", code);
  return {};
}

}  // namespace kavach::sink
