#include "sink/kafka/client.h"

#include <librdkafka/rdkafka.h>

#include <string_view>
#include <utility>

#include "engine/clock.h"
#include "engine/log.h"

namespace kavach::sink {
namespace {

constexpr std::int64_t kKiB = 1 << 10;
// librdkafka has syslog's levels.
constexpr int kLevelError = 3;
constexpr int kLevelWarning = 4;
constexpr int kLevelInfo = 6;

void forward_log(const rd_kafka_t*, int level, const char* facility, const char* line) {
  if (level <= kLevelError) {
    log::error("kafka: {}: {}", facility, line);
  } else if (level <= kLevelWarning) {
    log::warning("kafka: {}: {}", facility, line);
  } else if (level <= kLevelInfo) {
    log::info("kafka: {}: {}", facility, line);
  } else {
    log::debug("kafka: {}: {}", facility, line);
  }
}

// Sets one property after the other; the first that is refused is remembered, the rest is left.
class Builder {
 public:
  Builder() : conf_(rd_kafka_conf_new()) { rd_kafka_conf_set_log_cb(conf_.get(), forward_log); }

  void set(const char* property, const std::string& value) {
    if (!refusal_.empty()) return;
    const auto result = rd_kafka_conf_set(conf_.get(), property, value.c_str(), nullptr, 0);
    if (result != RD_KAFKA_CONF_OK)
      refusal_ = std::string("Kafka: librdkafka refuses the value of ") + property;
  }
  void set_unless_empty(const char* property, const std::string& value) {
    if (!value.empty()) set(property, value);
  }
  void refuse(std::string why) {
    if (refusal_.empty()) refusal_ = "Kafka: " + std::move(why);
  }
  Result<KafkaConf> take() {
    if (!refusal_.empty()) return failure(refusal_);
    return std::move(conf_);
  }

 private:
  KafkaConf conf_;
  std::string refusal_;
};

void set_connection(const KafkaOptions& options, Builder& builder) {
  const bool is_sasl = options.security_protocol.starts_with("sasl_");
  if (options.brokers.empty()) builder.refuse("no brokers are named");
  if (is_sasl &&
      (options.sasl_mechanism.empty() || options.sasl_user.empty() || options.sasl_password.empty()))
    builder.refuse(options.security_protocol + " needs a SASL mechanism, a user and a password");
  if (!is_sasl && !options.sasl_password.empty())
    builder.refuse("a SASL password is of no use with " + options.security_protocol);
  if (options.certificate_file.empty() != options.key_file.empty())
    builder.refuse("a client's certificate and its key go together");
  builder.set("bootstrap.servers", options.brokers);
  builder.set("client.id", options.client_id);
  builder.set("security.protocol", options.security_protocol);
  builder.set_unless_empty("sasl.mechanisms", options.sasl_mechanism);
  builder.set_unless_empty("sasl.username", options.sasl_user);
  builder.set_unless_empty("sasl.password", options.sasl_password);
  builder.set_unless_empty("ssl.ca.location", options.ca_file);
  builder.set_unless_empty("ssl.certificate.location", options.certificate_file);
  builder.set_unless_empty("ssl.key.location", options.key_file);
}

}  // namespace

void KafkaConfDestroyer::operator()(rd_kafka_conf_s* conf) const noexcept {
  rd_kafka_conf_destroy(conf);
}

Result<KafkaConf> producer_conf(const KafkaOptions& options) {
  Builder builder;
  set_connection(options, builder);
  builder.set("enable.idempotence", "true");
  builder.set("acks", "all");
  builder.set("message.timeout.ms", "0");
  builder.set("compression.type", options.compression);
  builder.set("linger.ms", std::to_string(static_cast<double>(options.linger_us) / 1000.0));
  builder.set("message.max.bytes", std::to_string(options.record_bytes_max + kRecordOverheadBytes));
  builder.set("batch.size", std::to_string(options.batch_bytes_max));
  builder.set("queue.buffering.max.kbytes", std::to_string((options.in_flight_bytes_max + kKiB - 1) / kKiB));
  // The partition that Java producers choose for a key.
  builder.set("partitioner", "murmur2_random");
  // Bytes are the bound, not the number of records.
  builder.set("queue.buffering.max.messages", "0");
  return builder.take();
}

Result<KafkaConf> consumer_conf(const KafkaOptions& options, const std::string& group) {
  Builder builder;
  set_connection(options, builder);
  builder.set("group.id", group);
  builder.set("session.timeout.ms", std::to_string(options.session_timeout_us / kMicrosPerMilli));
  builder.set("enable.auto.commit", "false");
  builder.set("enable.auto.offset.store", "false");
  return builder.take();
}

}  // namespace kavach::sink
