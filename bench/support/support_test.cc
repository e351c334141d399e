// The tools that measure are tested too: a wrong percentile or a repeated key would make every figure wrong.
#include <doctest/doctest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "bench/support/histogram.h"
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
