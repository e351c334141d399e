// Records: whatever is encoded comes back, one event to a record or many; what cannot be decoded says why.
#include "sink/kafka/record.h"

#include <doctest/doctest.h>

#include <deque>
#include <limits>
#include <string>
#include <vector>

#include "engine/bounds.h"

namespace kavach::sink {
namespace {

constexpr WallMicros kNow = 1'780'000'000LL * kMicrosPerSecond + 123'456;
constexpr WallMicros kYear1 = -62'135'596'800LL * kMicrosPerSecond;
constexpr WallMicros kYear9999End = 253'402'300'800LL * kMicrosPerSecond - 1;

class Batches {
 public:
  explicit Batches(std::uint64_t seed) : random_(seed) {}

  Batch next(std::size_t events) {
    Batch batch;
    batch.id = make_uuid7(kNow, random_);
    batch.org_id = make_uuid7(kNow, random_);
    batch.project_id = make_uuid7(kNow, random_);
    batch.received_at = kNow + static_cast<WallMicros>(below(5'000'000));
    batch.system = static_cast<IngestSystem>(below(3));
    for (std::size_t i = 0; i < events; ++i) batch.events.push_back(event());
    return batch;
  }

 private:
  std::uint64_t below(std::uint64_t bound) { return random_.next() % bound; }
  std::int64_t number() {
    const std::int64_t choices[] = {0,
                                    1,
                                    1'500'000,
                                    1'000'000'000,
                                    static_cast<std::int64_t>(below(1 << 30)),
                                    std::numeric_limits<std::int64_t>::max()};
    return choices[below(std::size(choices))];
  }
  std::string_view text(std::size_t pieces_max) {
    static const std::string_view kPieces[] = {"a",    "gpt-4o", "\"", "\\", "\n", std::string_view("\0", 1),
                                               "\x1f", "\x7f",   "é",  "日", "😀",  "{}",
                                               "/",    " ",      ",",  ":"};
    std::string& made = texts_.emplace_back();
    for (std::uint64_t i = below(pieces_max + 1); i-- > 0;) made += kPieces[below(std::size(kPieces))];
    return made;
  }
  Event event() {
    const WallMicros times[] = {kYear1, -1, 0, kNow, kNow - kNow % kMicrosPerSecond, kYear9999End};
    Event made;
    made.agent_name = text(20);
    made.provider = text(5);
    made.model = text(20);
    made.idempotency_key = text(10);
    made.run_id = text(10);
    made.prompt = text(200);
    made.timestamp = times[below(std::size(times))];
    made.input_tokens = number();
    made.output_tokens = number();
    made.duration_ms = number();
    made.cost = number();
    made.is_error = below(2) == 0;
    made.partial = below(2) == 0;
    return made;
  }

  Random random_;
  std::deque<std::string> texts_;
};

// A record's value and headers as the shipper sends them.
struct Sent {
  std::string value, org, event, node;
  RecordView view() const {
    return {.value = value, .org_id = org, .event_id = event, .node_id = node, .schema_version = "1"};
  }
};

std::vector<Sent> send(const Batch& batch, const Uuid& node, std::size_t events_max, std::size_t bytes_max) {
  std::vector<Sent> records;
  for (std::size_t first = 0; first < batch.events.size();) {
    Sent& sent = records.emplace_back(Sent{
        "", batch.org_id.text(), event_id(batch.id, static_cast<std::uint32_t>(first)).text(), node.text()});
    first += encode_record(batch, first, events_max, bytes_max, sent.value);
  }
  return records;
}

void check_round_trip(const Batch& batch, std::size_t events_max, std::size_t bytes_max) {
  Random random(7);
  const Uuid node = make_uuid7(kNow, random);
  RecordDecoder decoder;
  std::size_t at = 0;
  for (const Sent& sent : send(batch, node, events_max, bytes_max)) {
    Batch got;
    Uuid got_node;
    std::string arena;
    const auto decoded = decoder.decode(sent.view(), got, got_node, arena);
    const std::string why = decoded ? "" : decoded.error().text();
    REQUIRE(why == "");
    CHECK(got_node == node);
    CHECK(got.org_id == batch.org_id);
    CHECK(got.project_id == batch.project_id);
    CHECK(got.received_at == batch.received_at);
    CHECK(got.system == batch.system);
    for (std::uint32_t i = 0; i < got.events.size(); ++i, ++at) {
      REQUIRE(at < batch.events.size());
      CHECK(got.events[i] == batch.events[at]);
      CHECK(event_id(got.id, i) == event_id(batch.id, static_cast<std::uint32_t>(at)));
    }
  }
  CHECK(at == batch.events.size());
}

TEST_CASE("random batches come back, one event to a record, packed, or packed and cut") {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    CAPTURE(seed);
    Batches batches(seed);
    const Batch batch = batches.next(1 + seed % 40);
    check_round_trip(batch, 1, 1 << 20);
    check_round_trip(batch, bounds::kBatchEventsMax, std::size_t{1} << 30);
    check_round_trip(batch, bounds::kBatchEventsMax, 2'000);
  }
}

TEST_CASE("a batch of as many events as there may be has its ids, whole and in records of one") {
  Batches batches(3);
  const Batch batch = batches.next(bounds::kBatchEventsMax);
  check_round_trip(batch, 1, 1 << 20);
  check_round_trip(batch, bounds::kBatchEventsMax, std::size_t{1} << 30);
}

TEST_CASE("the value of a record is the documented JSON, with the exact cost") {
  Batch batch;
  batch.received_at = 1'779'719'400'000'001;
  batch.events.push_back({.agent_name = "bot",
                          .provider = "openai",
                          .model = "gpt-4o",
                          .idempotency_key = {},
                          .run_id = "r\"1",
                          .prompt = {},
                          .timestamp = 1'779'719'400'000'000,
                          .input_tokens = 1500,
                          .output_tokens = 800,
                          .duration_ms = 7,
                          .cost = 15'500'001,
                          .is_error = true,
                          .partial = false});
  std::string value;
  CHECK(encode_record(batch, 0, 1, 1, value) == 1);
  CHECK(value ==
        R"({"agent_name":"bot","provider":"openai","model":"gpt-4o","input_tokens":1500,"output_tokens":800,)"
        R"("cost":0.015500001,"timestamp":"2026-05-25T14:30:00Z","duration_ms":7,"run_id":"r\"1",)"
        R"("is_error":true,"received_at":"2026-05-25T14:30:00.000001Z",)"
        R"("project_id":"00000000-0000-0000-0000-000000000000","ingest_system":"ak"})");
}

std::string reason(const RecordView& record) {
  RecordDecoder decoder;
  Batch batch;
  Uuid node;
  std::string arena;
  const auto decoded = decoder.decode(record, batch, node, arena);
  return decoded ? "" : decoded.error().text();
}

std::string replaced(std::string text, std::string_view what, std::string_view by) {
  const std::size_t at = text.find(what);
  REQUIRE(at != std::string::npos);
  return text.replace(at, what.size(), by);
}

TEST_CASE("a record that cannot be decoded says why") {
  Batches batches(1);
  Batch batch = batches.next(2);
  batch.system = IngestSystem::kAgentKavach;
  batch.events[0].cost = batch.events[1].cost = kNanoPerDollar;
  batch.events[0].prompt = batch.events[1].prompt = {};
  Random random(9);
  const Sent sent = send(batch, make_uuid7(kNow, random), 2, 1 << 20).front();
  CHECK(reason(sent.view()).empty());
  const auto with_value = [&](std::string_view value) {
    RecordView record = sent.view();
    record.value = value;
    return reason(record);
  };
  RecordView record = sent.view();
  record.schema_version = "2";
  CHECK(reason(record) == "unknown schema version");
  record.schema_version = {};
  CHECK(reason(record) == "missing header \"schema_version\"");
  record = sent.view();
  record.org_id = {};
  CHECK(reason(record) == "missing header \"org_id\"");
  record = sent.view();
  record.event_id = "evt_1";
  CHECK(reason(record) == "bad header \"event_id\"");
  record = sent.view();
  record.node_id = {};
  CHECK(reason(record) == "missing header \"node_id\"");
  const std::string last = event_id(batch.id, bounds::kBatchEventsMax - 1).text();
  record = sent.view();
  record.event_id = last;
  CHECK(reason(record) == "too many events in line 2");

  CHECK(with_value("") == "empty record");
  CHECK(with_value("nonsense") == "bad JSON in line 1");
  CHECK(with_value("[]") == "bad JSON in line 1");
  CHECK(with_value(sent.value + "\n{") == "bad JSON in line 3");
  CHECK(with_value(sent.value + "{}") == "bad JSON in line 2");
  CHECK(with_value(replaced(sent.value, R"("model":)", R"("madel":)")) ==
        "missing field \"model\" in line 1");
  CHECK(with_value(replaced(sent.value, R"("cost":1,)", R"("cost":"1",)")) ==
        "bad value of field \"cost\" in line 1");
  CHECK(with_value(replaced(sent.value, R"("cost":1,)", R"("cost":-1,)")) ==
        "bad value of field \"cost\" in line 1");
  CHECK(with_value(replaced(sent.value, R"("ingest_system":"ak")", R"("ingest_system":"lg")")) ==
        "another \"ingest_system\" than in the line before in line 2");
}

TEST_CASE("no bytes upset the decoder: a record cut anywhere is refused") {
  Batches batches(5);
  Random random(5);
  const Sent sent = send(batches.next(1), make_uuid7(kNow, random), 1, 1 << 20).front();
  for (std::size_t size = 0; size < sent.value.size(); ++size) {
    RecordView record = sent.view();
    const std::string cut = sent.value.substr(0, size);
    record.value = cut;
    CAPTURE(size);
    CHECK(!reason(record).empty());
  }
}

}  // namespace
}  // namespace kavach::sink
