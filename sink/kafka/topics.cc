#include "sink/kafka/topics.h"

#include <librdkafka/rdkafka.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "sink/kafka/handles.h"

namespace kavach::sink {
namespace {

constexpr int kTimeoutMs = 30'000;

using Queue = std::unique_ptr<rd_kafka_queue_t, KafkaDestroyer<rd_kafka_queue_destroy>>;
using Event = std::unique_ptr<rd_kafka_event_t, KafkaDestroyer<rd_kafka_event_destroy>>;
using AdminOptions = std::unique_ptr<rd_kafka_AdminOptions_t, KafkaDestroyer<rd_kafka_AdminOptions_destroy>>;
using NewTopic = std::unique_ptr<rd_kafka_NewTopic_t, KafkaDestroyer<rd_kafka_NewTopic_destroy>>;

Failure refused(const std::string& what, const char* why) {
  return failure("Kafka: " + what + ": " + why);
}

Result<NewTopic> new_topic(const TopicPlan& plan) {
  char why[256];
  NewTopic topic(
      rd_kafka_NewTopic_new(plan.name.c_str(), plan.partitions, plan.replication, why, sizeof why));
  if (topic == nullptr) return refused(plan.name, why);
  const std::string retention = std::to_string(plan.retention_ms);
  if (plan.retention_ms > 0) rd_kafka_NewTopic_set_config(topic.get(), "retention.ms", retention.c_str());
  // What brokers take by default, and what a record of that length is with all that belongs to it.
  constexpr std::int64_t kDefaultBytes = 1'048'588;
  const std::string bytes =
      std::to_string(std::max(kDefaultBytes, plan.record_bytes_max + 2 * kRecordOverheadBytes));
  if (plan.record_bytes_max > 0)
    rd_kafka_NewTopic_set_config(topic.get(), "max.message.bytes", bytes.c_str());
  return topic;
}

}  // namespace

Result<std::vector<TopicOutcome>> create_topics(const KafkaOptions& options,
                                                std::span<const TopicPlan> topics) {
  auto conf = producer_conf(options);
  if (!conf) return conf.error();
  char why[256];
  const KafkaClient client(rd_kafka_new(RD_KAFKA_PRODUCER, conf->get(), why, sizeof why));
  if (client == nullptr) return refused("no client", why);
  static_cast<void>(conf->release());  // rd_kafka_new() has taken it

  std::vector<NewTopic> made;
  std::vector<rd_kafka_NewTopic_t*> asked;
  for (const TopicPlan& plan : topics) {
    auto topic = new_topic(plan);
    if (!topic) return topic.error();
    asked.push_back(topic->get());
    made.push_back(std::move(*topic));
  }
  const AdminOptions admin(rd_kafka_AdminOptions_new(client.get(), RD_KAFKA_ADMIN_OP_CREATETOPICS));
  rd_kafka_AdminOptions_set_request_timeout(admin.get(), kTimeoutMs, nullptr, 0);
  rd_kafka_AdminOptions_set_operation_timeout(admin.get(), kTimeoutMs, nullptr, 0);
  const Queue queue(rd_kafka_queue_new(client.get()));
  rd_kafka_CreateTopics(client.get(), asked.data(), asked.size(), admin.get(), queue.get());
  const Event event(rd_kafka_queue_poll(queue.get(), kTimeoutMs + 1'000));
  if (event == nullptr) return refused(options.brokers, "no answer");
  if (rd_kafka_event_error(event.get()) != RD_KAFKA_RESP_ERR_NO_ERROR) {
    return refused(options.brokers, rd_kafka_event_error_string(event.get()));
  }
  std::size_t count = 0;
  const rd_kafka_topic_result_t** const results =
      rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event.get()), &count);
  std::vector<TopicOutcome> outcomes;
  for (std::size_t i = 0; i < count; ++i) {
    const auto error = rd_kafka_topic_result_error(results[i]);
    const std::string name = rd_kafka_topic_result_name(results[i]);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR && error != RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS) {
      const char* const text = rd_kafka_topic_result_error_string(results[i]);
      return refused(name, text != nullptr ? text : rd_kafka_err2str(error));
    }
    outcomes.push_back({.name = name, .created = error == RD_KAFKA_RESP_ERR_NO_ERROR});
  }
  return outcomes;
}

}  // namespace kavach::sink
