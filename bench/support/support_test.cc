// The tools that measure are tested too: a wrong percentile or a repeated key would make every figure wrong.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "bench/support/histogram.h"
#include "bench/support/otlp_sample.h"
#include "bench/support/sample.h"
#include "engine/ids.h"
#include "http/ingest/batch_parser.h"
#include "http/ingest/inflate.h"

namespace kavach::bench {
namespace {

TEST_CASE("a percentile is within 0.8 % of the one found by sorting") {
  for (const std::uint64_t seed : {1U, 2U, 3U}) {
    CAPTURE(seed);
    Random random(seed);
    Histogram histogram;
    std::vector<std::uint64_t> values;
    for (int i = 0; i < 10'000; ++i) {
      // Of every order of magnitude, from 0 to 2^40.
      values.push_back(random.next() >> (24 + random.next() % 40));
      histogram.record(values.back());
    }
    std::sort(values.begin(), values.end());
    for (const double quantile : {0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0}) {
      CAPTURE(quantile);
      const auto rank = static_cast<std::size_t>(quantile * 10'000) - 1;
      const auto exact = static_cast<double>(values[rank]);
      const auto found = static_cast<double>(histogram.value_at(quantile));
      CHECK(found >= exact);
      CHECK(found <= exact * 1.008);
    }
    CHECK(histogram.max() == values.back());
    CHECK(histogram.count() == values.size());
  }
}

TEST_CASE("values below 256 are kept exactly, and an empty histogram answers 0") {
  Histogram histogram;
  CHECK(histogram.value_at(0.5) == 0);
  for (std::uint64_t value = 0; value < 256; ++value) histogram.record(value);
  for (std::uint64_t value = 0; value < 256; ++value) {
    CHECK(histogram.value_at(static_cast<double>(value + 1) / 256) == value);
  }
}

TEST_CASE("a value beyond the last bucket is still the maximum") {
  Histogram histogram;
  histogram.record(std::uint64_t{1} << 50);
  CHECK(histogram.max() == std::uint64_t{1} << 50);
  CHECK(histogram.value_at(1.0) <= histogram.max());
}

TEST_CASE("stamped samples are taken by the fast pass, and no key comes twice") {
  http::BatchParser parser({.batch_events_max = 1000});
  Batch batch;
  std::string arena;
  std::set<std::string> keys;
  std::uint64_t serial = 0;
  std::size_t events = 0;
  for (const std::uint32_t count : {1U, 10U, 1000U}) {
    for (const MemberOrder order : {MemberOrder::kSdk, MemberOrder::kShuffled}) {
      SampleBody sample = make_sample(count, 7, order);
      for (int round = 0; round < 3; ++round) {
        stamp_keys(sample.text.data(), sample.key_offsets, serial);
        const PaddedBuffer body = padded(sample.text);
        REQUIRE(parser.fast(body.view(), kSampleNow, batch, arena));
        REQUIRE(batch.events.size() == count);
        for (const Event& event : batch.events) {
          CHECK(Uuid::parse(event.idempotency_key).has_value());
          keys.emplace(event.idempotency_key);
        }
        events += count;
      }
    }
  }
  CHECK(keys.size() == events);
}

// A message of protobuf by field number: of each field the varints, and the bytes of everything else.
struct Message {
  explicit Message(std::string_view bytes) {
    while (!bytes.empty()) {
      const std::uint64_t tag = take_varint(bytes);
      switch (tag & 7) {
        case 0:
          numbers.emplace(tag >> 3, take_varint(bytes));
          break;
        case 1:
          texts.emplace(tag >> 3, take(bytes, 8));
          break;
        case 2: {
          const std::uint64_t length = take_varint(bytes);
          texts.emplace(tag >> 3, take(bytes, length));
          break;
        }
        default:
          FAIL("a wire type that nobody writes");
      }
    }
  }

  // The only one of that field.
  std::string_view text(std::uint64_t field) const {
    REQUIRE(texts.count(field) == 1);
    return texts.find(field)->second;
  }
  Message message(std::uint64_t field) const { return Message(text(field)); }

  static std::string_view take(std::string_view& bytes, std::size_t length) {
    REQUIRE(bytes.size() >= length);
    const std::string_view taken = bytes.substr(0, length);
    bytes.remove_prefix(length);
    return taken;
  }
  static std::uint64_t take_varint(std::string_view& bytes) {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<std::uint8_t>(take(bytes, 1)[0]);
      value |= std::uint64_t{byte & 0x7fU} << shift;
      if (byte < 0x80) return value;
    }
    FAIL("a varint without an end");
    return 0;
  }

  std::multimap<std::uint64_t, std::string_view> texts;
  std::multimap<std::uint64_t, std::uint64_t> numbers;
};

template <typename T>
T fixed64(std::string_view bytes) {
  T value{};
  REQUIRE(bytes.size() == sizeof(value));
  std::memcpy(&value, bytes.data(), sizeof(value));
  return value;
}

TEST_CASE("an OTLP sample has the events of the JSON sample, and its keys are stamped alike") {
  SampleBody json = make_sample(100, 7);
  SampleBody otlp = make_otlp_sample(100, 7);
  std::uint64_t serial_json = 5;
  std::uint64_t serial_otlp = 5;
  stamp_keys(json.text.data(), json.key_offsets, serial_json);
  stamp_keys(otlp.text.data(), otlp.key_offsets, serial_otlp);
  http::BatchParser parser({.batch_events_max = 1000});
  Batch batch;
  std::string arena;
  const PaddedBuffer body = padded(json.text);
  REQUIRE(parser.fast(body.view(), kSampleNow, batch, arena));

  const Message resource_logs = Message(otlp.text).message(1);
  const Message service_name = resource_logs.message(1).message(1);
  CHECK(service_name.text(1) == "service.name");
  CHECK(service_name.message(2).text(1) == batch.events.front().agent_name);
  const Message scope_logs = resource_logs.message(2);
  REQUIRE(scope_logs.texts.size() == batch.events.size());
  auto record = scope_logs.texts.begin();
  for (const Event& event : batch.events) {
    REQUIRE(record->first == 2);
    const Message log((record++)->second);
    std::map<std::string_view, Message> attributes;
    const auto [first, last] = log.texts.equal_range(6);
    for (auto it = first; it != last; ++it) {
      const Message attribute(it->second);
      attributes.emplace(attribute.text(1), attribute.message(2));
    }
    const auto text = [&](std::string_view name) { return attributes.at(name).text(1); };
    const auto number = [&](std::string_view name) {
      return static_cast<std::int64_t>(attributes.at(name).numbers.find(3)->second);
    };
    CHECK(attributes.size() == 9);
    CHECK(fixed64<std::int64_t>(log.text(1)) == event.timestamp * 1000);
    CHECK(text("model") == event.model);
    CHECK(text("provider") == event.provider);
    CHECK(text("idempotency_key") == event.idempotency_key);
    CHECK(text("run_id") == event.run_id);
    CHECK(text("status") == "success");
    CHECK(number("input_tokens") == event.input_tokens);
    CHECK(number("output_tokens") == event.output_tokens);
    CHECK(number("duration_ms") == event.duration_ms);
    CHECK(std::llround(fixed64<double>(attributes.at("cost").text(4)) * 1e9) == event.cost);
  }
}

TEST_CASE("a gzipped sample inflates to itself") {
  const SampleBody sample = make_sample(100, 3);
  http::Inflater inflater;
  PaddedBuffer out;
  http::InflateError error{};
  REQUIRE(inflater.inflate(gzip(sample.text), 10 << 20, out, error));
  CHECK(out.view() == sample.text);
}

}  // namespace
}  // namespace kavach::bench
