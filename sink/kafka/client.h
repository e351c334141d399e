// Kafka client: how Kavach's settings become librdkafka's, in one place for producers and consumers.
//
// A wrong value is refused with the name of librdkafka's own property, never with the value: it may be a
// password. librdkafka's log goes into ours.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/result.h"

struct rd_kafka_conf_s;

namespace kavach::sink {

struct KafkaOptions {
  std::string brokers = {};  // host:port, by commas
  std::string client_id = "kavach";
  std::string security_protocol = "plaintext";  // plaintext, ssl, sasl_plaintext, sasl_ssl
  std::string sasl_mechanism = {};              // PLAIN, SCRAM-SHA-256, SCRAM-SHA-512; needed with sasl_...
  std::string sasl_user = {};
  std::string sasl_password = {};
  std::string ca_file = {};           // empty: the system's
  std::string certificate_file = {};  // of this client, with the key beside it; empty: none
  std::string key_file = {};
  // Of producers.
  std::string compression = "lz4";  // none, lz4, zstd
  std::int64_t linger_us = 5'000;
  std::int64_t in_flight_bytes_max = 64 << 20;  // handed over and not acknowledged; rounded up to KiB
  std::int64_t record_bytes_max = 1'000'000;    // one record's value, before compression
  std::int64_t batch_bytes_max = 1'000'000;     // records that go to a partition together, likewise
  // Of members of a group: after this long without a sign of one the others take over.
  std::int64_t session_timeout_us = 45'000'000;
};

// Beside a record's value: its key, and its headers with the reason of a dead letter.
inline constexpr std::int64_t kRecordOverheadBytes = 16 << 10;

struct KafkaConfDestroyer {
  void operator()(rd_kafka_conf_s* conf) const noexcept;
};
using KafkaConf = std::unique_ptr<rd_kafka_conf_s, KafkaConfDestroyer>;

// An idempotent producer with acks=all: each record is acknowledged by all in-sync replicas, once and in
// order, however long a broker is away; no record times out.
Result<KafkaConf> producer_conf(const KafkaOptions& options);
// A member of `group` that commits nothing by itself.
Result<KafkaConf> consumer_conf(const KafkaOptions& options, const std::string& group);

}  // namespace kavach::sink
