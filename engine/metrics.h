// Metrics: counters of one writer that cost a plain increment and are scraped without a lock.
//
// Each shard (and each named thread) has its own instances; the scrape adds them up. A Counter is written by
// its owner thread only and read by any: relaxed atomics without read-modify-write compile to plain moves.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace kavach {

class Counter {
 public:
  // Owner thread.
  void add(std::uint64_t n = 1) noexcept {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  // Any thread.
  std::uint64_t value() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

class Gauge {
 public:
  // Owner thread.
  void set(std::int64_t v) noexcept { value_.store(v, std::memory_order_relaxed); }
  void add(std::int64_t n) noexcept { set(value() + n); }
  // Any thread.
  std::int64_t value() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::int64_t> value_{0};
};

// Durations in buckets of powers of two microseconds: 1 us .. 2^25 us (34 s), then +Inf.
class DurationHistogram {
 public:
  static constexpr std::size_t kBuckets = 27;

  // Owner thread.
  void record(std::int64_t micros) noexcept {
    const auto us = static_cast<std::uint64_t>(micros > 0 ? micros : 0);
    // Bucket i holds values <= 2^i.
    std::size_t i = us <= 1 ? 0 : static_cast<std::size_t>(std::bit_width(us - 1));
    if (i >= kBuckets) i = kBuckets - 1;
    counts_[i].add();
    sum_.add(us);
  }
  // Any thread.
  std::uint64_t count(std::size_t bucket) const noexcept { return counts_[bucket].value(); }
  std::uint64_t sum_micros() const noexcept { return sum_.value(); }

 private:
  std::array<Counter, kBuckets> counts_;
  Counter sum_;
};

// What /metrics shows. Built once at start; instances register themselves under a name and labels, several
// with the same name and labels are added up. Values are read at scrape time.
class MetricsRegistry {
 public:
  using Labels = std::map<std::string, std::string>;

  // Names are kavach_lower_case; counters end in `_total`, durations in `_seconds` (checked here).
  // REQUIRES: before the shards start; `metric` outlives the registry.
  void add(std::string name, std::string help, const Counter& metric, Labels labels = {});
  void add(std::string name, std::string help, const Gauge& metric, Labels labels = {});
  void add(std::string name, std::string help, const DurationHistogram& metric, Labels labels = {});
  // A gauge that is computed at scrape time; `read` is called from any thread.
  void add_gauge(std::string name, std::string help, std::function<double()> read, Labels labels = {});

  // Prometheus text exposition 0.0.4. Any thread.
  std::string expose() const;

 private:
  enum class Kind : std::uint8_t { kCounter, kGauge, kHistogram };
  struct Series {
    Labels labels;
    std::vector<const Counter*> counters;
    std::vector<std::function<double()>> gauges;
    std::vector<const DurationHistogram*> histograms;
  };
  struct Family {
    std::string name;
    std::string help;
    Kind kind;
    std::vector<Series> series;
  };
  Series& series(std::string name, std::string help, Kind kind, Labels labels);

  std::vector<Family> families_;
};

}  // namespace kavach
