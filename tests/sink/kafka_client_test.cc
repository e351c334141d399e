// Kafka's settings: what is told to librdkafka, and that a wrong one is named without its value.
#include "sink/kafka/client.h"

#include <doctest/doctest.h>
#include <librdkafka/rdkafka.h>

#include <string>

namespace kavach::sink {
namespace {

std::string value_of(const KafkaConf& conf, const char* property) {
  char text[256];
  std::size_t size = sizeof text;
  REQUIRE(rd_kafka_conf_get(conf.get(), property, text, &size) == RD_KAFKA_CONF_OK);
  return text;
}

KafkaOptions with_sasl() {
  return {.brokers = "127.0.0.1:9092",
          .security_protocol = "sasl_ssl",
          .sasl_mechanism = "SCRAM-SHA-512",
          .sasl_user = "kavach",
          .sasl_password = "s3cret"};
}

std::string refusal(const KafkaOptions& options) {
  const auto conf = producer_conf(options);
  return conf ? "" : conf.error().message;
}

TEST_CASE("a producer waits for all replicas, once and in order, as long as it takes") {
  KafkaOptions options = with_sasl();
  options.linger_us = 2'500;
  options.in_flight_bytes_max = 1'048'577;
  const auto conf = producer_conf(options);
  REQUIRE(conf.has_value());
  CHECK(value_of(*conf, "bootstrap.servers") == "127.0.0.1:9092");
  CHECK(value_of(*conf, "enable.idempotence") == "true");
  CHECK(value_of(*conf, "acks") == "-1");
  CHECK(value_of(*conf, "message.timeout.ms") == "0");
  CHECK(value_of(*conf, "compression.type") == "lz4");
  CHECK(value_of(*conf, "linger.ms") == "2.5");
  CHECK(value_of(*conf, "queue.buffering.max.kbytes") == "1025");
  CHECK(value_of(*conf, "security.protocol") == "sasl_ssl");
  CHECK(value_of(*conf, "sasl.mechanisms") == "SCRAM-SHA-512");
}

TEST_CASE("a consumer commits nothing by itself") {
  const auto conf = consumer_conf({.brokers = "127.0.0.1:9092"}, "writers");
  REQUIRE(conf.has_value());
  CHECK(value_of(*conf, "group.id") == "writers");
  CHECK(value_of(*conf, "enable.auto.commit") == "false");
  CHECK(value_of(*conf, "enable.auto.offset.store") == "false");
}

TEST_CASE("a setting that cannot be is named, and no secret is told") {
  CHECK(refusal(with_sasl()).empty());
  CHECK(refusal({}) == "Kafka: no brokers are named");
  KafkaOptions options = with_sasl();
  options.compression = "s3cret";
  CHECK(refusal(options) == "Kafka: librdkafka refuses the value of compression.type");
  options = with_sasl();
  options.sasl_user = {};
  CHECK(refusal(options) == "Kafka: sasl_ssl needs a SASL mechanism, a user and a password");
  options = with_sasl();
  options.security_protocol = "ssl";
  CHECK(refusal(options) == "Kafka: a SASL password is of no use with ssl");
  options = with_sasl();
  options.key_file = "key.pem";
  CHECK(refusal(options) == "Kafka: a client's certificate and its key go together");
}

}  // namespace
}  // namespace kavach::sink
