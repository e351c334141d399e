#include "sink/kafka/topic_reader.h"

#include <fmt/format.h>
#include <librdkafka/rdkafka.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <map>
#include <thread>
#include <utility>

#include "sink/kafka/handles.h"

namespace kavach::sink {
namespace {

// librdkafka wants a name where consumers are made; no such group ever has a member.
constexpr const char* kGroup = "kavach-reconcile";
// Fetched ahead of what is read, at most.
constexpr const char* kFetchedKiBMax = "16384";
constexpr int kErrorBytes = 512;
// Between two questions about a partition that has no leader at the moment.
constexpr auto kPause = std::chrono::milliseconds(200);

bool passes_by_itself(rd_kafka_resp_err_t code) noexcept {
  constexpr rd_kafka_resp_err_t kPassing[] = {RD_KAFKA_RESP_ERR__TRANSPORT,
                                              RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN,
                                              RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
                                              RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
                                              RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
                                              RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION,
                                              RD_KAFKA_RESP_ERR__TIMED_OUT,
                                              RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT};
  return std::find(std::begin(kPassing), std::end(kPassing), code) != std::end(kPassing);
}

}  // namespace

struct TopicReader::Impl {
  std::string topic;
  int timeout_ms = 0;
  KafkaClient client;

  Failure failed(std::string_view what, rd_kafka_resp_err_t code) const {
    return passing_failure(fmt::format("topic {}: {}: {}", topic, what, rd_kafka_err2str(code)));
  }
  MonoMicros deadline() const { return system_clock().mono() + timeout_ms * kMicrosPerMilli; }
  Result<std::vector<std::int32_t>> partitions() const;
  // Offsets for the times in `list`, in their place.
  rd_kafka_resp_err_t find_times(rd_kafka_topic_partition_list_t* list) const;

  // Asks until the answer is no failure, or none that passes, or there is no time left.
  template <typename Ask>
  rd_kafka_resp_err_t patiently(Ask ask) const {
    const MonoMicros until = deadline();
    for (;;) {
      const rd_kafka_resp_err_t code = ask();
      if (!passes_by_itself(code) || system_clock().mono() >= until) return code;
      std::this_thread::sleep_for(kPause);
    }
  }
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
  const KafkaTopicHandle handle(rd_kafka_topic_new(client.get(), topic.c_str(), nullptr));
  const rd_kafka_metadata_t* found = nullptr;
  const rd_kafka_resp_err_t code = rd_kafka_metadata(client.get(), 0, handle.get(), &found, timeout_ms);
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return failed("cannot ask the brokers", code);
  const KafkaMetadata metadata(found);
  const rd_kafka_metadata_topic& described = metadata->topics[0];
  std::vector<std::int32_t> ids;
  if (described.err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) return ids;
  if (described.err != RD_KAFKA_RESP_ERR_NO_ERROR) return failed("cannot be read", described.err);
  for (int i = 0; i < described.partition_cnt; ++i) ids.push_back(described.partitions[i].id);
  return ids;
}

rd_kafka_resp_err_t TopicReader::Impl::find_times(rd_kafka_topic_partition_list_t* list) const {
  const PartitionList answered(rd_kafka_topic_partition_list_copy(list));
  rd_kafka_resp_err_t code = rd_kafka_offsets_for_times(client.get(), answered.get(), timeout_ms);
  for (const rd_kafka_topic_partition_t& at : elements_of(*answered)) {
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR) code = at.err;
  }
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return code;
  for (int i = 0; i < list->cnt; ++i) list->elems[i].offset = answered->elems[i].offset;
  return code;
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
  rd_kafka_resp_err_t code = impl_->patiently([&] { return impl_->find_times(begins.get()); });
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return impl_->failed("cannot ask where to begin", code);
  for (const rd_kafka_topic_partition_t& at : elements_of(*begins)) {
    std::int64_t low = 0;
    std::int64_t high = 0;
    code = impl_->patiently([&] {
      return rd_kafka_query_watermark_offsets(client, at.topic, at.partition, &low, &high, impl_->timeout_ms);
    });
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
  MonoMicros until = impl_->deadline();
  while (!ends.empty()) {
    rd_kafka_message_t* const message = rd_kafka_consumer_poll(client, impl_->timeout_ms);
    if (message == nullptr)
      return passing_failure("topic " + impl_->topic + ": the brokers stopped answering");
    const ConsumedRecord record(message);
    if (passes_by_itself(message->err) && system_clock().mono() < until) continue;
    until = impl_->deadline();
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
