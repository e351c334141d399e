// Roll-up: events folded in memory by the keys of the aggregate tables, so that a transaction writes each row
// of usage_*, agents, runs and node_usage once however many events touch it.
//
// Knows no SQL. Columns and their meaning: contract/entities.md sections 3 to 5. All sums saturate. Keys and
// values hold views into the batches that were added: these must live until clear(). Memory is kept between
// uses.
#pragma once

#include <algorithm>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "engine/clock.h"
#include "engine/event.h"

namespace kavach::sink {

inline constexpr std::int64_t kMinuteS = 60;
inline constexpr std::int64_t kHourS = 3'600;
// How long usage_minute keeps its rows (contract/entities.md section 6).
inline constexpr std::int64_t kMinuteRowsUs = 48 * kMicrosPerHour;

std::size_t hash_of(const Uuid& id) noexcept;
std::size_t hash_of(std::string_view text) noexcept;
std::size_t hash_of(std::int64_t number) noexcept;

template <typename First, typename... Rest>
std::size_t hash_of(const First& first, const Rest&... rest) noexcept {
  std::size_t hash = hash_of(first);
  ((hash = (hash ^ hash_of(rest)) * 0x9e3779b97f4a7c15ULL, hash ^= hash >> 32), ...);
  return hash;
}

// usage_minute and usage_hourly.
struct UsageKey {
  Uuid project_id;
  std::int64_t bucket_s;
  std::string_view agent_name, provider, model;
  friend auto operator<=>(const UsageKey&, const UsageKey&) = default;
  std::size_t hash() const noexcept { return hash_of(project_id, bucket_s, agent_name, provider, model); }
};

// usage_hourly_dim, without the dimensions that AgentKavach's events do not have (user, tags).
struct DimensionKey {
  Uuid org_id;
  std::int64_t hour_s;
  std::string_view agent_name, provider;
  friend auto operator<=>(const DimensionKey&, const DimensionKey&) = default;
  std::size_t hash() const noexcept { return hash_of(org_id, hour_s, agent_name, provider); }
};

// usage_daily_platform.
struct DayKey {
  std::int64_t day_s;
  Uuid project_id;
  std::string_view provider, model;
  friend auto operator<=>(const DayKey&, const DayKey&) = default;
  std::size_t hash() const noexcept { return hash_of(day_s, project_id, provider, model); }
};

// agents by name, runs by run id.
struct OrgTextKey {
  Uuid org_id;
  std::string_view text;
  friend auto operator<=>(const OrgTextKey&, const OrgTextKey&) = default;
  std::size_t hash() const noexcept { return hash_of(org_id, text); }
};

// node_usage, but for the node, which is the same for all.
struct PeriodKey {
  static constexpr std::string_view kDaily = "daily";
  static constexpr std::string_view kMonthly = "monthly";
  static constexpr std::string_view kTotal = "total";

  Uuid org_id;
  std::string_view period;  // one of the above
  std::int64_t number;      // days or months since 1970; 0 for total
  friend auto operator<=>(const PeriodKey&, const PeriodKey&) = default;
  std::size_t hash() const noexcept { return hash_of(org_id, period, number); }
};

// What every aggregate is made of; each table takes the fields that it has columns for.
struct Usage {
  Uuid org_id;
  std::int64_t events = 0, errors = 0;
  std::int64_t cost = 0, error_cost = 0;  // nano-dollars
  std::int64_t input_tokens = 0, output_tokens = 0, output_tokens_max = 0;
  std::int64_t duration_ms = 0;
  std::int64_t timed_events = 0;  // those with duration_ms > 0: the divisor of an average latency
  std::int64_t first_event_us = std::numeric_limits<std::int64_t>::max();
  std::int64_t last_event_us = std::numeric_limits<std::int64_t>::min();

  void add(const Uuid& org, const Event& event) noexcept;
};

struct AgentUsage : Usage {
  std::string_view provider, model;  // of the latest event
  std::int64_t last_received_us = std::numeric_limits<std::int64_t>::min();

  void add(const Batch& batch, const Event& event) noexcept;
};

struct RunUsage : Usage {
  std::string_view agent_name;           // of the earliest event
  bool last_is_error = false;            // of the latest event
  std::vector<std::string_view> models;  // each once

  void add(const Uuid& org, const Event& event);
};

// A hash table from Key to Value that is filled, read in key order and cleared, again and again: open
// addressing over indexes into one vector of rows.
template <typename Key, typename Value>
class Fold {
 public:
  struct Row {
    Key key;
    Value value;
  };

  // The value of `key`, made when it is new. Valid until the next call.
  Value& at(const Key& key) {
    if ((rows_.size() + 1) * 2 > slots_.size()) grow();
    std::uint32_t& slot = slots_[find(key)];
    if (slot == kEmpty) {
      slot = static_cast<std::uint32_t>(rows_.size());
      rows_.push_back({key, {}});
    }
    return rows_[slot].value;
  }

  // All rows in the order of their keys, texts compared as bytes: writers that lock rows in one order never
  // deadlock (Postgres), and neighbours in an index are written together. Only clear() may follow.
  const std::vector<Row>& sorted() {
    std::sort(rows_.begin(), rows_.end(), [](const Row& a, const Row& b) { return a.key < b.key; });
    return rows_;
  }

  // In no order.
  const std::vector<Row>& rows() const noexcept { return rows_; }

  void clear() noexcept {
    rows_.clear();
    std::fill(slots_.begin(), slots_.end(), kEmpty);
  }

 private:
  static constexpr std::uint32_t kEmpty = std::numeric_limits<std::uint32_t>::max();

  std::size_t find(const Key& key) const noexcept {
    const std::size_t mask = slots_.size() - 1;
    std::size_t i = key.hash() & mask;
    while (slots_[i] != kEmpty && rows_[slots_[i]].key != key) i = (i + 1) & mask;
    return i;
  }

  void grow() {
    slots_.assign(std::max<std::size_t>(64, slots_.size() * 2), kEmpty);
    for (std::size_t row = 0; row < rows_.size(); ++row) {
      slots_[find(rows_[row].key)] = static_cast<std::uint32_t>(row);
    }
  }

  std::vector<Row> rows_;
  std::vector<std::uint32_t> slots_;  // a power of two, at most half full
};

struct RollUp {
  Fold<UsageKey, Usage> minutes;  // only events younger than 48 h when they came in
  Fold<UsageKey, Usage> hours;
  Fold<DimensionKey, Usage> dimensions;
  Fold<DayKey, Usage> days;
  Fold<OrgTextKey, AgentUsage> agents;
  Fold<OrgTextKey, RunUsage> runs;
  Fold<PeriodKey, Usage> periods;  // by the time of acceptance

  void add(const Batch& batch, const Event& event);
  void clear() noexcept;
};

// The start of the bucket of `size_s` seconds that holds `t`, in seconds; also before 1970.
std::int64_t bucket_start(WallMicros t, std::int64_t size_s) noexcept;

}  // namespace kavach::sink
