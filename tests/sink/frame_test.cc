// Payloads: what is encoded comes back, field by field; what no encoder wrote is refused, and any bytes are
// safe.
#include "sink/journal/frame.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <limits>
#include <string>

#include "engine/bounds.h"
#include "engine/timestamp.h"

namespace kavach::sink {
namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::int64_t kInt64Max = std::numeric_limits<std::int64_t>::max();
constexpr WallMicros kNow = 1'780'000'000LL * kMicrosPerSecond;
constexpr WallMicros kYear1 = -62'135'596'800LL * kMicrosPerSecond;
constexpr WallMicros kYear9999End = 253'402'300'800LL * kMicrosPerSecond - 1;
// Type, system, three ids, received_at (8 bytes for kNow) and a count of one byte come before the first
// event.
constexpr std::size_t kFirstEvent = 2 + 3 * 16 + 8 + 1;

// Batches with every kind of field, and the texts that they point into.
class Batches {
 public:
  explicit Batches(std::uint64_t seed) : random_(seed) {}

  Batch next(std::size_t events) {
    Batch batch;
    batch.id = make_uuid7(kNow, random_);
    batch.org_id = make_uuid7(kNow, random_);
    batch.project_id = make_uuid7(kNow, random_);
    batch.received_at = pick<WallMicros>({0, 1, kNow, kNow + 12'345, kYear9999End});
    batch.system = pick<IngestSystem>(
        {IngestSystem::kAgentKavach, IngestSystem::kLlmGovernor, IngestSystem::kAgentCost});
    for (std::size_t i = 0; i < events; ++i) batch.events.push_back(next_event());
    return batch;
  }

 private:
  std::uint64_t below(std::uint64_t bound) { return random_.next() % bound; }
  template <typename T>
  T pick(std::initializer_list<T> choices) {
    return choices.begin()[below(choices.size())];
  }

  Event next_event() {
    Event event;
    event.agent_name = name();
    event.provider = name();
    event.model = name();
    event.idempotency_key = id();
    event.run_id = id();
    event.prompt = below(10) == 0 ? text(below(9'000)) : std::string_view{};
    event.timestamp = pick<WallMicros>({kYear1, -1, 0, kNow - 7, kNow, kNow + kMicrosPerHour, kYear9999End});
    event.input_tokens = number();
    event.output_tokens = number();
    event.duration_ms = number();
    event.cost = number();
    event.is_error = below(2) == 0;
    event.partial = below(2) == 0;
    return event;
  }
  std::int64_t number() {
    return pick<std::int64_t>({0, 1, 127, 128, 16'383, 16'384, static_cast<std::int64_t>(below(100'000)),
                               kInt64Max - 1, kInt64Max});
  }
  // Often the one before, as in real batches.
  std::string_view name() {
    return below(3) != 0 && !texts_.empty() ? std::string_view(texts_.back()) : text(1 + below(1'020));
  }
  // None, a UUID, something that only looks like one, or any text.
  std::string_view id() {
    std::string uuid = make_uuid7(kNow, random_).text();
    switch (below(6)) {
      case 0:
        return {};
      case 1:
        return keep(std::move(uuid));
      case 2:
        std::transform(uuid.begin(), uuid.end(), uuid.begin(),
                       [](char c) { return c >= 'a' && c <= 'f' ? static_cast<char>(c - 32) : c; });
        return keep(std::move(uuid));
      case 3:
        uuid[below(uuid.size())] = 'x';
        return keep(std::move(uuid));
      case 4:
        return keep(uuid + "0");
      default:
        return text(1 + below(255));
    }
  }
  // Any bytes, NUL too.
  std::string_view text(std::size_t size) {
    std::string made(size, '\0');
    for (std::size_t at = 0; at < size; at += 8) {
      const std::uint64_t word = random_.next();
      std::memcpy(made.data() + at, &word, std::min<std::size_t>(8, size - at));
    }
    return keep(std::move(made));
  }
  std::string_view keep(std::string made) { return texts_.emplace_back(std::move(made)); }

  Random random_;
  std::deque<std::string> texts_;
};

Bytes encoded(const Batch& batch, std::span<const std::uint8_t> admitted = {}) {
  Bytes payload;
  encode_batch(batch, admitted, payload);
  return payload;
}

// What decode_batch() gives back with the memory that its views need.
struct Decoded {
  explicit Decoded(Bytes bytes) : payload(std::move(bytes)) {
    const auto result = decode_batch(payload, batch, arena);
    if (!result) error = result.error();
  }
  Bytes payload;
  std::string arena;
  Batch batch;
  std::optional<FrameError> error;
};

void check_same(const Batch& got, const Batch& sent, std::span<const std::uint8_t> admitted = {}) {
  CHECK(got.id == sent.id);
  CHECK(got.org_id == sent.org_id);
  CHECK(got.project_id == sent.project_id);
  CHECK(got.received_at == sent.received_at);
  CHECK(got.system == sent.system);
  std::size_t at = 0;
  for (std::size_t i = 0; i < sent.events.size(); ++i) {
    if (!admitted.empty() && admitted[i] == 0) continue;
    REQUIRE(at < got.events.size());
    CHECK((got.events[at++] == sent.events[i]));
  }
  CHECK(at == got.events.size());
}

// A batch of some events that is not large, for tests that go through all bytes.
Bytes middling_payload() {
  for (std::uint64_t seed = 1;; ++seed) {
    Batches batches(seed);
    Bytes payload = encoded(batches.next(4));
    if (payload.size() > 1000 && payload.size() < 3000) return payload;
  }
}

// One small event behind a whole head, for bytes that are changed by hand.
Bytes small_payload() {
  Batch batch;
  batch.received_at = kNow;
  Event& event = batch.events.emplace_back();
  event.agent_name = "a";
  event.provider = "p";
  event.model = "m";
  event.timestamp = kNow;
  return encoded(batch);
}

TEST_CASE("random batches come back as they were, extremes included") {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    CAPTURE(seed);
    Batches batches(seed);
    const Batch batch = batches.next(1 + seed % 40);
    const Decoded decoded(encoded(batch));
    REQUIRE_FALSE(decoded.error);
    check_same(decoded.batch, batch);
  }
}

TEST_CASE("only the admitted events are in the payload") {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    CAPTURE(seed);
    Batches batches(seed);
    const Batch batch = batches.next(20);
    std::vector<std::uint8_t> admitted(20);
    Random random(seed);
    for (std::uint8_t& one : admitted) one = static_cast<std::uint8_t>(random.next() % 2);
    admitted[random.next() % 20] = 1;
    const Decoded decoded(encoded(batch, admitted));
    REQUIRE_FALSE(decoded.error);
    check_same(decoded.batch, batch, admitted);
  }
}

TEST_CASE("a payload is appended to what is there") {
  Batches batches(1);
  const Batch batch = batches.next(3);
  Bytes out = {1, 2, 3};
  encode_batch(batch, {}, out);
  CHECK(std::equal(out.begin(), out.begin() + 3, Bytes{1, 2, 3}.begin()));
  CHECK(Bytes(out.begin() + 3, out.end()) == encoded(batch));
}

TEST_CASE("the largest batch comes back, its keys and runs too") {
  Random random(1);
  std::deque<std::string> ids;
  Batch batch;
  for (std::uint32_t i = 0; i < bounds::kBatchEventsMax; ++i) {
    Event& event = batch.events.emplace_back();
    event.agent_name = "agent";
    event.idempotency_key = ids.emplace_back(make_uuid7(kNow, random).text());
    event.run_id = ids.emplace_back(make_uuid7(kNow, random).text());
  }
  const Decoded decoded(encoded(batch));
  REQUIRE_FALSE(decoded.error);
  check_same(decoded.batch, batch);
}

TEST_CASE("a batch that is decoded into again keeps nothing of the one before") {
  Batches batches(1);
  const Bytes large = encoded(batches.next(30));
  const Bytes small = small_payload();
  Batch batch;
  std::string arena;
  REQUIRE(decode_batch(large, batch, arena).has_value());
  REQUIRE(decode_batch(small, batch, arena).has_value());
  REQUIRE(batch.events.size() == 1);
  CHECK(batch.events[0].idempotency_key.empty());
  CHECK(batch.events[0].run_id.empty());
  CHECK(batch.events[0].prompt.empty());
  CHECK(batch.events[0].input_tokens == 0);
}

TEST_CASE("an ordinary event takes less than 50 bytes") {
  Random random(1);
  std::deque<std::string> keys;
  Batch batch;
  batch.received_at = kNow;
  for (int i = 0; i < 100; ++i) {
    Event& event = batch.events.emplace_back();
    event.agent_name = "research-bot";
    event.provider = "openai";
    event.model = "gpt-4o";
    event.run_id = "run_abc123";
    event.idempotency_key = keys.emplace_back(make_uuid7(kNow, random).text());
    event.timestamp = kNow - static_cast<WallMicros>(random.next() % (5 * kMicrosPerSecond));
    event.input_tokens = static_cast<std::int64_t>(random.next() % 20'000);
    event.output_tokens = static_cast<std::int64_t>(random.next() % 4'000);
    event.duration_ms = static_cast<std::int64_t>(random.next() % 30'000);
    event.cost = static_cast<std::int64_t>(random.next() % 1'000'000'000);
  }
  CHECK(encoded(batch).size() < 100 * 50);
}

TEST_CASE("a payload that ends too early is refused wherever it ends") {
  const Bytes whole = middling_payload();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    const Decoded cut(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)));
    CHECK(cut.error == FrameError::kTruncated);
  }
}

TEST_CASE("bytes behind the last event are refused") {
  Bytes payload = small_payload();
  payload.push_back(0);
  CHECK(Decoded(payload).error == FrameError::kBadField);
}

TEST_CASE("a payload of a type that is not known is refused as such, whatever follows") {
  for (const std::uint8_t type : Bytes{0, 2, 255}) {
    Bytes payload = small_payload();
    payload[0] = type;
    CHECK(Decoded(payload).error == FrameError::kUnknownType);
    CHECK(Decoded(Bytes{type}).error == FrameError::kUnknownType);
  }
}

TEST_CASE("a system that is not known is refused") {
  Bytes payload = small_payload();
  payload[1] = 3;
  CHECK(Decoded(payload).error == FrameError::kBadField);
}

TEST_CASE("a flag that is not known is refused") {
  for (int bit = 10; bit < 16; ++bit) {
    CAPTURE(bit);
    Bytes payload = small_payload();
    payload[kFirstEvent + 1] = static_cast<std::uint8_t>(payload[kFirstEvent + 1] | 1 << (bit - 8));
    CHECK(Decoded(payload).error == FrameError::kBadField);
  }
}

TEST_CASE("a batch without events, or with more than there can be, is refused") {
  Bytes none = small_payload();
  none[kFirstEvent - 1] = 0;
  CHECK(Decoded(none).error == FrameError::kBadField);

  Bytes many = small_payload();
  many.resize(kFirstEvent - 1);
  const std::uint32_t count = bounds::kBatchEventsMax + 1;
  many.push_back(static_cast<std::uint8_t>(count | 0x80));
  many.push_back(static_cast<std::uint8_t>(count >> 7));
  CHECK(Decoded(many).error == FrameError::kBadField);
}

TEST_CASE("a number beyond 63 bits is refused") {
  Bytes payload = small_payload();
  // The event's timestamp takes one byte here; its input tokens follow.
  const auto tokens = payload.begin() + kFirstEvent + 3;
  REQUIRE(*tokens == 0);
  const Bytes beyond = {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01};
  payload.insert(payload.erase(tokens), beyond.begin(), beyond.end());
  CHECK(Decoded(payload).error.has_value());
}

// Whatever is decoded must lie within the bytes that were given, which the sanitizers watch.
std::size_t touch(const Batch& batch) {
  std::size_t sum = 0;
  for (const Event& e : batch.events) {
    for (const auto text : {e.agent_name, e.provider, e.model, e.idempotency_key, e.run_id, e.prompt})
      for (const char c : text) sum += static_cast<unsigned char>(c);
  }
  return sum;
}

TEST_CASE("any bytes are safe to decode") {
  Random random(1);
  for (int i = 0; i < 10'000; ++i) {
    Bytes bytes(random.next() % 300);
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random.next());
    if (!bytes.empty()) bytes[0] = 1;
    const Decoded decoded(bytes);
    if (!decoded.error) CHECK(touch(decoded.batch) > 0);
  }
}

TEST_CASE("a payload with any one byte changed is safe to decode") {
  const Bytes whole = middling_payload();
  Random random(1);
  std::size_t decoded_count = 0;
  for (std::size_t at = 0; at < whole.size(); ++at) {
    Bytes changed = whole;
    changed[at] = static_cast<std::uint8_t>(random.next());
    const Decoded decoded(changed);
    if (!decoded.error) decoded_count += touch(decoded.batch) > 0 ? 1U : 0U;
  }
  CHECK(decoded_count > whole.size() / 2);  // most bytes are text: the checksum is what finds them
}

}  // namespace
}  // namespace kavach::sink
