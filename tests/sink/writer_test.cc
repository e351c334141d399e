// The writer against a broker (librdkafka's mock cluster in this process, or a real Apache Kafka) and a
// store in memory that can be away, refuse a record, and be taken over by somebody else. What is shown: every
// record is handed to the store once, in order, with a position that follows from it; what cannot be stored
// is buried.
#include "sink/writer/writer.h"

#include <doctest/doctest.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <mutex>
#include <thread>

#include "tests/support/kafka_broker.h"

namespace kavach::sink {
namespace {

constexpr const char* kTopic = "events";
constexpr const char* kDeadLetters = "events.dlq";
constexpr std::int32_t kPartitions = 2;
constexpr std::int64_t kPatience = 120 * kMicrosPerSecond;

void wait_until(const std::function<bool()>& condition, const char* what) {
  const MonoMicros until = system_clock().mono() + 60 * kMicrosPerSecond;
  while (!condition()) {
    REQUIRE_MESSAGE(system_clock().mono() < until, what);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

rd_kafka_conf_t* conf_of(std::initializer_list<std::pair<const char*, std::string>> settings) {
  rd_kafka_conf_t* const conf = rd_kafka_conf_new();
  for (const auto& [name, value] : settings) {
    REQUIRE(rd_kafka_conf_set(conf, name, value.c_str(), nullptr, 0) == RD_KAFKA_CONF_OK);
  }
  return conf;
}

// librdkafka's, within this process.
class MockBroker {
 public:
  MockBroker() {
    client_ = rd_kafka_new(RD_KAFKA_PRODUCER, conf_of({{"log_level", "0"}}), nullptr, 0);
    cluster_ = rd_kafka_mock_cluster_new(client_, 1);
    rd_kafka_mock_topic_create(cluster_, kTopic, kPartitions, 1);
    rd_kafka_mock_topic_create(cluster_, kDeadLetters, 1, 1);
  }
  ~MockBroker() {
    rd_kafka_mock_cluster_destroy(cluster_);
    rd_kafka_destroy(client_);
  }

  std::string address() const { return rd_kafka_mock_cluster_bootstraps(cluster_); }

 private:
  rd_kafka_t* client_ = nullptr;
  rd_kafka_mock_cluster_t* cluster_ = nullptr;
};

// What the database has; shared by the connections of several writers.
struct Database {
  std::mutex mutex;
  std::map<std::int32_t, StoredPosition> positions;
  std::vector<std::string> stored;
  std::string refused;  // an event of this name
  bool away = false;
  std::size_t in_time_max = 1'000'000;  // more events of one transaction take too long
  int claims = 0;
};

class MemoryStore final : public WriterStore {
 public:
  explicit MemoryStore(Database& database) : database_(database) {}

  Result<std::vector<StoredPosition>, WriteFailure> claim(std::string_view,
                                                          std::span<const std::int32_t> partitions) override {
    const std::lock_guard lock(database_.mutex);
    if (database_.away) return WriteFailure{WriteError::kAway, "away"};
    ++database_.claims;
    std::vector<StoredPosition> claimed;
    for (const std::int32_t partition : partitions) {
      StoredPosition& position = database_.positions[partition];
      position.partition = partition;
      ++position.generation;
      claimed.push_back(position);
    }
    return claimed;
  }

  Result<ApplyOutcome, WriteFailure> apply(std::string_view, std::span<const Batch> batches,
                                           std::span<const Uuid>,
                                           std::span<const StoredPosition> positions) override {
    const std::lock_guard lock(database_.mutex);
    if (database_.away) return WriteFailure{WriteError::kAway, "away"};
    for (const StoredPosition& position : positions) {
      if (database_.positions[position.partition].generation != position.generation) {
        return WriteFailure{WriteError::kFenced, "fenced"};
      }
    }
    std::size_t events = 0;
    for (const Batch& batch : batches) events += batch.events.size();
    if (events > database_.in_time_max) return WriteFailure{WriteError::kAway, "has not answered in time"};
    std::vector<std::string> names;
    for (const Batch& batch : batches) {
      for (const Event& event : batch.events) {
        if (event.agent_name == database_.refused) return WriteFailure{WriteError::kRefused, "not this one"};
        names.emplace_back(event.agent_name);
      }
    }
    database_.stored.insert(database_.stored.end(), names.begin(), names.end());
    for (const StoredPosition& position : positions) database_.positions[position.partition] = position;
    return ApplyOutcome{.stored = names.size(), .duplicates = 0};
  }

 private:
  Database& database_;
};

// A record is one event with that name; "bad" is none.
Status decode(const ConsumedRecord& record, Batch& batch, Uuid&, std::string&) {
  if (record.value() == "bad") return failure("it is bad");
  batch.events.emplace_back().agent_name = record.value();
  return {};
}

class RealBroker : public test::KafkaBroker {
 public:
  RealBroker() : KafkaBroker(KAVACH_SOURCE_DIR) {}
};

template <typename Broker>
struct Pipeline {
  Broker broker;
  Database database;
  std::unique_ptr<RecordSender> sender;

  Pipeline() {
    auto made = RecordSender::create(producer());
    REQUIRE(made.has_value());
    sender = std::move(*made);
  }

  rd_kafka_conf_t* producer() const {
    return conf_of(
        {{"bootstrap.servers", broker.address()}, {"log_level", "0"}, {"enable.idempotence", "true"}});
  }
  rd_kafka_conf_t* consumer(const std::string& group) const {
    return conf_of({{"bootstrap.servers", broker.address()},
                    {"log_level", "0"},
                    {"group.id", group},
                    {"enable.auto.commit", "false"},
                    {"auto.offset.reset", "earliest"},
                    {"session.timeout.ms", "6000"}});
  }

  void send(const std::vector<std::string>& values) {
    std::vector<OutgoingRecord> records;
    for (const std::string& value : values) {
      records.push_back(
          {.topic = kTopic, .key = value, .value = value, .timestamp_ms = 1'700'000'000'000, .headers = {}});
      records.back().headers.emplace_back("h", "1");
    }
    REQUIRE(sender->send(records, kPatience).has_value());
  }

  std::unique_ptr<Writer> start() {
    auto writer =
        Writer::create(std::make_unique<MemoryStore>(database), decode, consumer("writers"), producer(),
                       {.batch_events_max = 50,
                        .batch_delay_us = 1'000,
                        .topic = kTopic,
                        .dead_letter_topic = kDeadLetters});
    REQUIRE(writer.has_value());
    (*writer)->start();
    return std::move(*writer);
  }

  std::size_t stored() {
    const std::lock_guard lock(database.mutex);
    return database.stored.size();
  }
  std::vector<std::string> sorted() {
    const std::lock_guard lock(database.mutex);
    std::vector<std::string> names = database.stored;
    std::ranges::sort(names);
    return names;
  }
  void set_away(bool away) {
    const std::lock_guard lock(database.mutex);
    database.away = away;
  }

  struct Letter {
    std::string value;
    std::map<std::string, std::string> headers;
  };
  std::vector<Letter> letters(bool all = true, bool remember = false) {
    auto reader = DeadLetterReader::create(consumer("writers-dlq"), kDeadLetters, kPatience);
    REQUIRE(reader.has_value());
    std::vector<Letter> found;
    const Status read = (*reader)->read(all, [&](const ConsumedRecord& record) -> Status {
      Letter letter{.value = std::string(record.value()), .headers = {}};
      for (const auto& [name, value] : record.headers()) letter.headers.emplace(name, value);
      found.push_back(std::move(letter));
      return {};
    });
    REQUIRE(read.has_value());
    if (remember) REQUIRE((*reader)->remember().has_value());
    return found;
  }
};

using Fixture = Pipeline<MockBroker>;
using RealFixture = Pipeline<RealBroker>;

std::vector<std::string> names(std::size_t from, std::size_t to) {
  std::vector<std::string> made;
  for (std::size_t i = from; i < to; ++i) made.push_back("event-" + std::to_string(10'000 + i));
  return made;
}

}  // namespace

TEST_CASE_FIXTURE(Fixture, "the writer hands every record to the store once, also over a restart") {
  send(names(0, 300));
  auto writer = start();
  wait_until([&] { return stored() >= 300; }, "300 records");
  writer->stop(kPatience);
  CHECK(writer->healthy());
  CHECK(writer->metrics().events.value() == 300);
  writer.reset();

  send(names(300, 400));
  writer = start();
  wait_until([&] { return stored() >= 400; }, "400 records");
  writer->stop(kPatience);
  CHECK(sorted() == names(0, 400));
}

TEST_CASE_FIXTURE(Fixture,
                  "a record that is no event, and one that the store refuses, are buried with their reason") {
  database.refused = "event-10007";
  auto values = names(0, 100);
  values.insert(values.begin() + 50, "bad");
  send(values);
  auto writer = start();
  wait_until([&] { return stored() >= 99; }, "99 records");
  writer->stop(kPatience);
  CHECK(stored() == 99);
  CHECK(writer->metrics().dead_letters.value() == 2);

  auto found = letters();
  REQUIRE(found.size() == 2);
  std::ranges::sort(found, {}, &Fixture::Letter::value);
  CHECK(found[0].value == "bad");
  CHECK(found[0].headers["kavach-dlq-reason"] == "it is bad");
  CHECK(found[1].value == "event-10007");
  CHECK(found[1].headers["kavach-dlq-reason"] == "not this one");
  CHECK(found[1].headers["kavach-dlq-topic"] == kTopic);
  CHECK(found[1].headers["kavach-dlq-timestamp-ms"] == "1700000000000");
  CHECK(found[1].headers["h"] == "1");

  CHECK(letters(false, true).size() == 2);
  CHECK(letters(false).empty());
  CHECK(letters().size() == 2);
}

TEST_CASE_FIXTURE(Fixture, "a store that is away is waited for") {
  set_away(true);
  send(names(0, 100));
  auto writer = start();
  wait_until([&] { return !writer->healthy(); }, "the failure is seen");
  set_away(false);
  wait_until([&] { return stored() >= 50; }, "a part is stored");
  set_away(true);
  send(names(100, 200));
  wait_until([&] { return !writer->healthy(); }, "the second failure is seen");
  set_away(false);
  wait_until([&] { return stored() >= 200; }, "all are stored");
  writer->stop(kPatience);
  CHECK(sorted() == names(0, 200));
  CHECK(writer->healthy());
}

TEST_CASE_FIXTURE(Fixture, "a database that is too slow for a large transaction gets smaller ones") {
  database.in_time_max = 40;
  send(names(0, 200));
  auto writer = start();
  wait_until([&] { return stored() >= 200; }, "all are stored");
  writer->stop(kPatience);
  CHECK(sorted() == names(0, 200));
}

TEST_CASE_FIXTURE(
    Fixture, "a writer whose partitions somebody else has claimed stores nothing until it has them again") {
  send(names(0, 10));
  auto writer = start();
  wait_until([&] { return stored() >= 10; }, "10 records");
  {
    const std::lock_guard lock(database.mutex);
    for (auto& [partition, position] : database.positions) ++position.generation;
  }
  send(names(10, 20));
  wait_until([&] { return stored() >= 20; }, "20 records");
  writer->stop(kPatience);
  CHECK(writer->metrics().fenced.value() >= 1);
  CHECK(sorted() == names(0, 20));
}

TEST_CASE_FIXTURE(Fixture, "writers of one group store each record once while they come and go") {
  auto first = start();
  send(names(0, 100));
  auto second = start();
  send(names(100, 300));
  wait_until([&] { return stored() >= 300; }, "300 records");
  first->stop(kPatience);
  send(names(300, 400));
  wait_until([&] { return stored() >= 400; }, "400 records");
  second->stop(kPatience);
  CHECK(sorted() == names(0, 400));
}

TEST_CASE_FIXTURE(RealFixture,
                  "Apache Kafka that is killed, started again, and frozen costs the writer no record") {
  auto values = names(0, 200);
  values.push_back("bad");
  send(values);
  auto writer = start();
  wait_until([&] { return stored() >= 100; }, "some are stored");
  broker.kill();
  broker.start();
  send(names(200, 400));
  wait_until([&] { return stored() >= 300; }, "the writer goes on");
  broker.pause();
  std::this_thread::sleep_for(std::chrono::seconds(2));
  broker.resume();
  send(names(400, 500));
  wait_until([&] { return stored() >= 500; }, "all are stored");
  writer->stop(kPatience);
  CHECK(sorted() == names(0, 500));
  REQUIRE(letters().size() == 1);
  CHECK(letters(false, true).front().value == "bad");
  CHECK(letters(false).empty());
}

}  // namespace kavach::sink
