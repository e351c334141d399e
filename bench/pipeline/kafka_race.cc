// The race to Kafka.
#include <fmt/format.h>
#include <librdkafka/rdkafka.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <stdexcept>
#include <thread>

#include "bench/pipeline/races.h"
#include "sink/kafka/client.h"
#include "sink/kafka/record.h"
#include "sink/kafka/shipper.h"
#include "sink/kafka/topics.h"

namespace kavach::bench {
namespace {

// As the topic of the shipped settings has them.
constexpr int kPartitions = 16;
constexpr int kTimeoutMs = 60'000;
// Reports are taken once in so many records.
constexpr std::size_t kPollEvery = 100;

struct KafkaDestroyer {
  void operator()(rd_kafka_t* kafka) const noexcept { rd_kafka_destroy(kafka); }
};
using Kafka = std::unique_ptr<rd_kafka_t, KafkaDestroyer>;
struct TopicDestroyer {
  void operator()(rd_kafka_topic_t* topic) const noexcept { rd_kafka_topic_destroy(topic); }
};
using Topic = std::unique_ptr<rd_kafka_topic_t, TopicDestroyer>;

void check(rd_kafka_resp_err_t error) {
  if (error != RD_KAFKA_RESP_ERR_NO_ERROR) throw std::runtime_error(rd_kafka_err2str(error));
}

Kafka make_producer(sink::KafkaConf conf) {
  char why[256];
  Kafka kafka(rd_kafka_new(RD_KAFKA_PRODUCER, conf.get(), why, sizeof why));
  if (kafka == nullptr) throw std::runtime_error(why);
  static_cast<void>(conf.release());  // rd_kafka_new() has taken it
  return kafka;
}

std::string new_topic(const sink::KafkaOptions& options, std::string_view leg) {
  const std::string name = fmt::format("race-{}-{}-{}", leg, ::getpid(), system_clock().wall());
  const std::array plans{sink::TopicPlan{.name = name, .partitions = kPartitions}};
  static_cast<void>(sink::create_topics(options, plans).value());
  return name;
}

void check_topic(const sink::KafkaOptions& options, const std::string& topic, std::size_t records) {
  const Kafka kafka = make_producer(sink::producer_conf(options).value());
  std::size_t found = 0;
  for (std::int32_t partition = 0; partition < kPartitions; ++partition) {
    std::int64_t low = 0;
    std::int64_t high = 0;
    check(rd_kafka_query_watermark_offsets(kafka.get(), topic.c_str(), partition, &low, &high, kTimeoutMs));
    found += static_cast<std::size_t>(high - low);
  }
  if (found != records)
    throw std::runtime_error(fmt::format("{} has {} of {} records", topic, found, records));
}

Leg run_shipper(const RaceOptions& options, const sink::KafkaOptions& kafka, const Workload& workload) {
  FilledJournal filled(options.directory, workload);
  const std::string topic = new_topic(kafka, "kavach");
  auto shipper =
      sink::KafkaShipper::create(filled.journal(),
                                 {.kafka = kafka, .topic = topic, .journal_directory = filled.directory()})
          .value();
  const LegTimer timer("kavach");
  shipper->start([](std::uint32_t) {});
  while (shipper->metrics().records.value() < workload.events()) {
    if (shipper->metrics().failures.value() != 0) throw std::runtime_error("the shipper has failed");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const Leg leg = timer.stop();
  shipper->stop(kMicrosPerSecond);
  check_topic(kafka, topic, workload.events());
  return leg;
}

// A record as the shipper makes it, ready to be sent.
struct ReadyRecord {
  std::size_t offset;  // in `values`
  std::size_t size;
  std::size_t batch;
  std::array<char, 36> event_id;
};

Leg run_raw(const sink::KafkaOptions& options, const Workload& workload) {
  std::string values;
  std::vector<ReadyRecord> records;
  std::vector<std::string> orgs;
  for (std::size_t b = 0; b < workload.batches().size(); ++b) {
    const Batch& batch = workload.batches()[b];
    orgs.push_back(batch.org_id.text());
    for (std::uint32_t i = 0; i < batch.events.size(); ++i) {
      ReadyRecord& record =
          records.emplace_back(ReadyRecord{.offset = values.size(), .size = 0, .batch = b, .event_id = {}});
      sink::encode_record(batch, i, 1, static_cast<std::size_t>(options.record_bytes_max), values);
      record.size = values.size() - record.offset;
      event_id(batch.id, i).write_text(record.event_id.data());
    }
  }
  const std::string topic = new_topic(options, "raw");
  Random random;
  const std::string node = make_uuid7(system_clock().wall(), random).text();
  struct Reports {
    std::size_t acknowledged = 0, failed = 0;
  } reports;

  const LegTimer timer("ceiling");
  auto conf = sink::producer_conf(options).value();
  rd_kafka_conf_set_opaque(conf.get(), &reports);
  rd_kafka_conf_set_dr_msg_cb(conf.get(), [](rd_kafka_t*, const rd_kafka_message_t* message, void* opaque) {
    auto& counts = *static_cast<Reports*>(opaque);
    ++(message->err == RD_KAFKA_RESP_ERR_NO_ERROR ? counts.acknowledged : counts.failed);
  });
  const Kafka kafka = make_producer(std::move(conf));
  const Topic handle(rd_kafka_topic_new(kafka.get(), topic.c_str(), nullptr));
  for (std::size_t i = 0; i < records.size(); ++i) {
    const ReadyRecord& record = records[i];
    const std::string& org = orgs[record.batch];
    char* const value = values.data() + record.offset;
    for (;;) {
      const auto error = rd_kafka_producev(
          kafka.get(), RD_KAFKA_V_RKT(handle.get()), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
          RD_KAFKA_V_KEY(org.data(), org.size()), RD_KAFKA_V_VALUE(value, record.size),
          RD_KAFKA_V_TIMESTAMP(workload.batches()[record.batch].received_at / kMicrosPerMilli),
          RD_KAFKA_V_HEADER(sink::kOrgHeader.data(), org.data(), static_cast<ssize_t>(org.size())),
          RD_KAFKA_V_HEADER(sink::kEventHeader.data(), record.event_id.data(),
                            static_cast<ssize_t>(record.event_id.size())),
          RD_KAFKA_V_HEADER(sink::kNodeHeader.data(), node.data(), static_cast<ssize_t>(node.size())),
          RD_KAFKA_V_HEADER(sink::kVersionHeader.data(), sink::kSchemaVersion.data(),
                            static_cast<ssize_t>(sink::kSchemaVersion.size())),
          RD_KAFKA_V_END);
      if (error == RD_KAFKA_RESP_ERR_NO_ERROR) break;
      if (error != RD_KAFKA_RESP_ERR__QUEUE_FULL) check(error);
      rd_kafka_poll(kafka.get(), 1);
    }
    if (i % kPollEvery == 0) rd_kafka_poll(kafka.get(), 0);
  }
  while (reports.acknowledged + reports.failed < records.size()) rd_kafka_poll(kafka.get(), 100);
  const Leg leg = timer.stop();
  if (reports.failed != 0) throw std::runtime_error("records were not taken");
  check_topic(options, topic, records.size());
  return leg;
}

}  // namespace

std::vector<Leg> race_kafka(const RaceOptions& options) {
  const Workload workload(options.workload);
  sink::KafkaOptions kafka;
  kafka.brokers = options.brokers;
  const auto ours = [&] { return run_shipper(options, kafka, workload); };
  const auto raw = [&] { return run_raw(kafka, workload); };
  if (options.ceiling_first) {
    Leg first = raw();
    return {std::move(first), ours()};
  }
  Leg first = ours();
  return {std::move(first), raw()};
}

}  // namespace kavach::bench
