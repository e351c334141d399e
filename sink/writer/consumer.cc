#include "sink/writer/consumer.h"

#include <librdkafka/rdkafka.h>

#include <algorithm>

#include "engine/log.h"
#include "sink/kafka/handles.h"

namespace kavach::sink {
namespace {

constexpr int kErrorBytes = 512;

}  // namespace

// --- ConsumedRecord ----------------------------------------------------------------------------------------

void ConsumedRecord::Destroy::operator()(rd_kafka_message_s* message) const noexcept {
  rd_kafka_message_destroy(message);
}

std::int32_t ConsumedRecord::partition() const noexcept {
  return message_->partition;
}

std::int64_t ConsumedRecord::offset() const noexcept {
  return message_->offset;
}

std::int64_t ConsumedRecord::timestamp_ms() const noexcept {
  return std::max<std::int64_t>(0, rd_kafka_message_timestamp(message_.get(), nullptr));
}

std::string_view ConsumedRecord::topic() const noexcept {
  return rd_kafka_topic_name(message_->rkt);
}

std::string_view ConsumedRecord::key() const noexcept {
  return {static_cast<const char*>(message_->key), message_->key_len};
}

std::string_view ConsumedRecord::value() const noexcept {
  return {static_cast<const char*>(message_->payload), message_->len};
}

std::vector<std::pair<std::string_view, std::string_view>> ConsumedRecord::headers() const {
  std::vector<std::pair<std::string_view, std::string_view>> all;
  rd_kafka_headers_t* headers = nullptr;
  if (rd_kafka_message_headers(message_.get(), &headers) != RD_KAFKA_RESP_ERR_NO_ERROR) return all;
  const char* name = nullptr;
  const void* value = nullptr;
  std::size_t size = 0;
  while (rd_kafka_header_get_all(headers, all.size(), &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR) {
    all.emplace_back(name, std::string_view(static_cast<const char*>(value), size));
  }
  return all;
}

// --- Consumer ----------------------------------------------------------------------------------------------

void Consumer::Destroy::operator()(rd_kafka_s* client) const noexcept {
  rd_kafka_destroy(client);
}

struct Consumer::Rebalance {
  static void on_change(rd_kafka_t* client, rd_kafka_resp_err_t code, rd_kafka_topic_partition_list_t* list,
                        void* opaque) {
    auto& self = *static_cast<Consumer*>(opaque);
    if (code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
      assign(self, client, *list);
      return;
    }
    std::vector<std::int32_t> partitions;
    for (const auto& entry : elements_of(*list)) partitions.push_back(entry.partition);
    // First: nobody may still work for them when the group hears that they are free.
    self.owner_.lose(partitions);
    rd_kafka_assign(client, nullptr);
    log::info("writer: {} partitions given up", partitions.size());
  }

  static void assign(Consumer& self, rd_kafka_t* client, rd_kafka_topic_partition_list_t& list) {
    std::vector<PartitionStart> starts;
    for (const auto& entry : elements_of(list))
      starts.push_back({.partition = entry.partition, .offset = {}});
    if (!self.owner_.take(starts)) {
      rd_kafka_assign(client, nullptr);
      return;
    }
    for (int i = 0; i < list.cnt; ++i) {
      list.elems[i].offset = starts[static_cast<std::size_t>(i)].offset.value_or(RD_KAFKA_OFFSET_BEGINNING);
    }
    rd_kafka_assign(client, &list);
    if (self.held_) self.apply_hold();
    log::info("writer: has {} partitions", list.cnt);
  }
};

Result<std::unique_ptr<Consumer>> Consumer::create(rd_kafka_conf_s* conf, const std::string& topic,
                                                   Owner& owner) {
  std::unique_ptr<Consumer> made(new Consumer(topic, owner));
  rd_kafka_conf_set_opaque(conf, made.get());
  rd_kafka_conf_set_rebalance_cb(conf, &Rebalance::on_change);
  char error[kErrorBytes];
  made->client_.reset(rd_kafka_new(RD_KAFKA_CONSUMER, conf, error, sizeof(error)));
  if (made->client_ == nullptr) {
    rd_kafka_conf_destroy(conf);
    return failure(std::string("cannot make the Kafka consumer: ") + error);
  }
  rd_kafka_poll_set_consumer(made->client_.get());
  made->join();
  return made;
}

Consumer::~Consumer() {
  leave();
}

void Consumer::join() {
  const PartitionList topics = make_list(1);
  rd_kafka_topic_partition_list_add(topics.get(), topic_.c_str(), RD_KAFKA_PARTITION_UA);
  // Fails only for what no config can be: an empty list, a client that is no consumer.
  rd_kafka_subscribe(client_.get(), topics.get());
  is_member_ = true;
}

std::optional<ConsumedRecord> Consumer::poll(std::int64_t timeout_us) {
  rd_kafka_message_t* const message =
      rd_kafka_consumer_poll(client_.get(), static_cast<int>(timeout_us / kMicrosPerMilli));
  if (message == nullptr) return std::nullopt;
  ConsumedRecord record(message);
  if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) return record;
  // Brokers that are away and the like pass, and librdkafka tries again by itself.
  log::warning("writer: {}: {}", topic_, rd_kafka_message_errstr(message));
  return std::nullopt;
}

void Consumer::apply_hold() {
  rd_kafka_topic_partition_list_t* assigned = nullptr;
  if (rd_kafka_assignment(client_.get(), &assigned) != RD_KAFKA_RESP_ERR_NO_ERROR) return;
  const PartitionList list(assigned);
  if (held_) {
    rd_kafka_pause_partitions(client_.get(), list.get());
  } else {
    rd_kafka_resume_partitions(client_.get(), list.get());
  }
}

void Consumer::hold() {
  if (held_) return;
  held_ = true;
  apply_hold();
}

void Consumer::release() {
  if (!held_) return;
  held_ = false;
  apply_hold();
}

void Consumer::rejoin() {
  rd_kafka_unsubscribe(client_.get());
  join();
}

void Consumer::leave() {
  if (!is_member_) return;
  is_member_ = false;
  // Calls the owner for what it still has, and waits for the group to be told.
  rd_kafka_consumer_close(client_.get());
}

std::int64_t Consumer::records_behind(std::span<const PartitionStart> starts) const {
  std::int64_t behind = 0;
  for (const PartitionStart& start : starts) {
    std::int64_t low = 0;
    std::int64_t high = 0;
    if (rd_kafka_get_watermark_offsets(client_.get(), topic_.c_str(), start.partition, &low, &high) !=
        RD_KAFKA_RESP_ERR_NO_ERROR) {
      continue;  // not known yet
    }
    behind += std::max<std::int64_t>(0, high - std::max(low, start.offset.value_or(low)));
  }
  return behind;
}

}  // namespace kavach::sink
