#include "sink/writer/dead_letters.h"

#include <fmt/format.h>
#include <librdkafka/rdkafka.h>

#include <algorithm>
#include <charconv>

#include "engine/clock.h"
#include "sink/kafka/handles.h"

namespace kavach::sink {
namespace {

constexpr int kErrorBytes = 512;

Result<KafkaClient> make_client(rd_kafka_type_t type, rd_kafka_conf_t* conf) {
  char error[kErrorBytes];
  KafkaClient client(rd_kafka_new(type, conf, error, sizeof(error)));
  if (client != nullptr) return client;
  rd_kafka_conf_destroy(conf);
  return failure(std::string("cannot make the Kafka client: ") + error);
}

Failure kafka_failure(std::string_view what, rd_kafka_resp_err_t code) {
  return passing_failure(fmt::format("{}: {}", what, rd_kafka_err2str(code)));
}

bool is_ours(std::string_view header) {
  namespace names = dead_letter_header;
  return header == names::kReason || header == names::kTopic || header == names::kPartition ||
         header == names::kOffset || header == names::kTimestamp;
}

}  // namespace

// --- there and back ----------------------------------------------------------------------------------------

OutgoingRecord bury(const ConsumedRecord& record, std::string_view reason, std::string_view topic) {
  namespace names = dead_letter_header;
  OutgoingRecord letter{.topic = topic,
                        .key = record.key(),
                        .value = record.value(),
                        .timestamp_ms = record.timestamp_ms(),
                        .headers = {}};
  // Of a letter that was replayed in vain only the newest reason stays.
  for (const auto& [name, value] : record.headers()) {
    if (!is_ours(name)) letter.headers.emplace_back(name, value);
  }
  letter.headers.emplace_back(names::kReason, reason);
  letter.headers.emplace_back(names::kTopic, record.topic());
  letter.headers.emplace_back(names::kPartition, std::to_string(record.partition()));
  letter.headers.emplace_back(names::kOffset, std::to_string(record.offset()));
  letter.headers.emplace_back(names::kTimestamp, std::to_string(record.timestamp_ms()));
  return letter;
}

Result<OutgoingRecord> revive(const ConsumedRecord& letter) {
  OutgoingRecord record{.topic = {},
                        .key = letter.key(),
                        .value = letter.value(),
                        .timestamp_ms = letter.timestamp_ms(),
                        .headers = {}};
  for (const auto& [name, value] : letter.headers()) {
    if (name == dead_letter_header::kTopic) record.topic = value;
    if (name == dead_letter_header::kTimestamp) {
      std::from_chars(value.data(), value.data() + value.size(), record.timestamp_ms);
    }
    if (!is_ours(name)) record.headers.emplace_back(name, value);
  }
  if (record.topic.empty()) {
    return failure(fmt::format("{} partition {} offset {} has no header {}: it is no dead letter",
                               letter.topic(), letter.partition(), letter.offset(),
                               dead_letter_header::kTopic));
  }
  return record;
}

// --- RecordSender ------------------------------------------------------------------------------------------

struct RecordSender::Impl {
  // Of the send() that is under way.
  std::size_t waiting = 0;
  rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR_NO_ERROR;
  KafkaClient client;  // the last: its destruction may still report

  static void on_delivery(rd_kafka_t*, const rd_kafka_message_t* message, void* opaque) {
    auto& self = *static_cast<Impl*>(opaque);
    --self.waiting;
    if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) self.error = message->err;
  }

  rd_kafka_resp_err_t produce(const OutgoingRecord& record) {
    rd_kafka_headers_t* const headers = rd_kafka_headers_new(record.headers.size());
    for (const auto& [name, value] : record.headers) {
      rd_kafka_header_add(headers, name.data(), static_cast<ssize_t>(name.size()), value.data(),
                          static_cast<ssize_t>(value.size()));
    }
    const std::string topic(record.topic);
    const rd_kafka_resp_err_t code = rd_kafka_producev(
        client.get(), RD_KAFKA_V_TOPIC(topic.c_str()), RD_KAFKA_V_KEY(record.key.data(), record.key.size()),
        // librdkafka only reads what it copies.
        RD_KAFKA_V_VALUE(const_cast<char*>(record.value.data()), record.value.size()),
        RD_KAFKA_V_TIMESTAMP(record.timestamp_ms), RD_KAFKA_V_HEADERS(headers),
        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) rd_kafka_headers_destroy(headers);
    return code;
  }
};

RecordSender::RecordSender(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RecordSender::~RecordSender() = default;

Result<std::unique_ptr<RecordSender>> RecordSender::create(rd_kafka_conf_s* conf) {
  auto impl = std::make_unique<Impl>();
  rd_kafka_conf_set_opaque(conf, impl.get());
  rd_kafka_conf_set_dr_msg_cb(conf, &Impl::on_delivery);
  auto client = make_client(RD_KAFKA_PRODUCER, conf);
  if (!client) return client.error();
  impl->client = std::move(*client);
  return std::unique_ptr<RecordSender>(new RecordSender(std::move(impl)));
}

Status RecordSender::send(std::span<const OutgoingRecord> records, std::int64_t timeout_us) {
  rd_kafka_t* const client = impl_->client.get();
  impl_->error = RD_KAFKA_RESP_ERR_NO_ERROR;
  for (const OutgoingRecord& record : records) {
    rd_kafka_resp_err_t code = impl_->produce(record);
    while (code == RD_KAFKA_RESP_ERR__QUEUE_FULL) {
      rd_kafka_poll(client, 100);
      if (impl_->error != RD_KAFKA_RESP_ERR_NO_ERROR) break;
      code = impl_->produce(record);
    }
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
      impl_->error = code;
      break;
    }
    ++impl_->waiting;
  }
  if (rd_kafka_flush(client, static_cast<int>(timeout_us / kMicrosPerMilli)) != RD_KAFKA_RESP_ERR_NO_ERROR) {
    // What is still under way must not arrive after the caller was told that it did not.
    rd_kafka_purge(client, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    rd_kafka_flush(client, static_cast<int>(timeout_us / kMicrosPerMilli));
    if (impl_->error == RD_KAFKA_RESP_ERR_NO_ERROR) impl_->error = RD_KAFKA_RESP_ERR__TIMED_OUT;
  }
  if (impl_->error == RD_KAFKA_RESP_ERR_NO_ERROR) return {};
  return kafka_failure("Kafka did not take the records", impl_->error);
}

// --- DeadLetterReader --------------------------------------------------------------------------------------

struct DeadLetterReader::Impl {
  std::string topic;
  int timeout_ms = 0;
  KafkaClient client;
  PartitionList read;  // each partition with the offset up to which it was read
};

DeadLetterReader::DeadLetterReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DeadLetterReader::~DeadLetterReader() {
  if (impl_->client != nullptr) rd_kafka_consumer_close(impl_->client.get());
}

Result<std::unique_ptr<DeadLetterReader>> DeadLetterReader::create(rd_kafka_conf_s* conf, std::string topic,
                                                                   std::int64_t timeout_us) {
  auto impl = std::make_unique<Impl>();
  impl->topic = std::move(topic);
  impl->timeout_ms = static_cast<int>(timeout_us / kMicrosPerMilli);
  auto client = make_client(RD_KAFKA_CONSUMER, conf);
  if (!client) return client.error();
  impl->client = std::move(*client);
  rd_kafka_poll_set_consumer(impl->client.get());
  return std::unique_ptr<DeadLetterReader>(new DeadLetterReader(std::move(impl)));
}

Status DeadLetterReader::read(bool all, const std::function<Status(ConsumedRecord letter)>& each) {
  rd_kafka_t* const client = impl_->client.get();
  const int patience = impl_->timeout_ms;
  const KafkaTopicHandle handle(rd_kafka_topic_new(client, impl_->topic.c_str(), nullptr));
  const rd_kafka_metadata_t* found = nullptr;
  rd_kafka_resp_err_t code = rd_kafka_metadata(client, 0, handle.get(), &found, patience);
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return kafka_failure("cannot ask the brokers", code);
  const KafkaMetadata metadata(found);
  const rd_kafka_metadata_topic& topic = metadata->topics[0];
  if (topic.err != RD_KAFKA_RESP_ERR_NO_ERROR) return kafka_failure("topic " + impl_->topic, topic.err);

  impl_->read = make_list(static_cast<std::size_t>(topic.partition_cnt));
  for (int i = 0; i < topic.partition_cnt; ++i) {
    rd_kafka_topic_partition_list_add(impl_->read.get(), impl_->topic.c_str(), topic.partitions[i].id);
  }
  code = rd_kafka_committed(client, impl_->read.get(), patience);
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return kafka_failure("cannot ask what was replayed", code);

  for (rd_kafka_topic_partition_t& at : elements_of(*impl_->read)) {
    std::int64_t low = 0;
    std::int64_t high = 0;
    code = rd_kafka_query_watermark_offsets(client, at.topic, at.partition, &low, &high, patience);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return kafka_failure("cannot ask how much there is", code);
    at.offset = all ? low : std::max(low, at.offset);  // negative: nothing was replayed
    if (at.offset >= high) continue;
    const PartitionList one = make_list(1);
    rd_kafka_topic_partition_list_add(one.get(), at.topic, at.partition)->offset = at.offset;
    if (code = rd_kafka_assign(client, one.get()); code != RD_KAFKA_RESP_ERR_NO_ERROR) {
      return kafka_failure("cannot read " + impl_->topic, code);
    }
    while (at.offset < high) {
      rd_kafka_message_t* const message = rd_kafka_consumer_poll(client, patience);
      if (message == nullptr) return passing_failure("the brokers stopped answering");
      ConsumedRecord letter(message);
      if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return passing_failure(fmt::format("{}: {}", impl_->topic, rd_kafka_message_errstr(message)));
      }
      const std::int64_t next = letter.offset() + 1;
      if (Status done = each(std::move(letter)); !done) return done;
      at.offset = next;
    }
  }
  return {};
}

Status DeadLetterReader::remember() {
  const rd_kafka_resp_err_t code = rd_kafka_commit(impl_->client.get(), impl_->read.get(), 0);
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return kafka_failure("cannot note what was replayed", code);
  return {};
}

}  // namespace kavach::sink
