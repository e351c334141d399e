// StoreAudit: what a reconciliation asks of the database: which events it has, how far its writers came, and
// whether its roll-ups are the sums of its events.
//
// A connection of its own that only reads: nothing is made, migrated or claimed, so the database has to be
// one that kavachd has opened before. Rows are handed over one at a time, however many there are. One thread
// at a time; calls block.
//
// The events of a period are found through their ids, which begin with the millisecond of acceptance: that
// costs what the period has, not what the table has. An event whose id was made by somebody else, from
// another time, is found by has_event() alone.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/clock.h"
#include "engine/ids.h"
#include "sink/store/store.h"

namespace kavach::sink {

struct StoredEvent {
  Uuid id;
  Uuid org_id;
  WallMicros timestamp = 0;  // its own, by which it is rolled up
};

// Full hours of UTC, in seconds; `to_s` is behind the last one.
struct HourRange {
  std::int64_t from_s = 0;
  std::int64_t to_s = 0;
  friend bool operator==(const HourRange&, const HourRange&) = default;
};

// All saturate.
struct UsageSum {
  std::int64_t events = 0;
  std::int64_t cost = 0;  // nano-dollars
  std::int64_t input_tokens = 0;
  std::int64_t output_tokens = 0;

  void add(const UsageSum& other) noexcept;
  friend bool operator==(const UsageSum&, const UsageSum&) = default;
};

// What an organization's rows of some hours add up to in each table.
struct UsageSums {
  UsageSum events, hourly, by_dimension;  // events, usage_hourly, usage_hourly_dim
  bool differ = false;                    // in any of the hours' ranges; the sums may still agree
};

class StoreAudit {
 public:
  virtual ~StoreAudit() = default;

  // The last frame of the journal that was stored; 0: none.
  virtual StoreResult<std::uint64_t> journal_position(const Uuid& journal_id) = 0;
  // Of every partition of `topic` that somebody has claimed. No generation is raised.
  virtual StoreResult<std::vector<PartitionPosition>> partition_positions(std::string_view topic) = 0;

  // Every event that was accepted in [since, until), in no order.
  using EventVisitor = std::function<void(const StoredEvent& event)>;
  virtual StoreResult<void> scan_events(WallMicros since, WallMicros until, const EventVisitor& each) = 0;
  // Of these the ones whose key another event of the project has, accepted at most `window_us` before, in the
  // period or (as far as the key is remembered) before it. `timestamp` is not set. Takes 8 bytes an event,
  // and some hundred for each that shares its key.
  virtual StoreResult<void> scan_doubled_keys(WallMicros since, WallMicros until, std::int64_t window_us,
                                              const EventVisitor& each) = 0;
  virtual StoreResult<bool> has_event(const Uuid& id) = 0;
  // Whether another event than `id` has this key, and is why that one was dropped. Keys are remembered for
  // the deduplication window.
  virtual StoreResult<bool> has_key(const Uuid& project_id, std::string_view key, const Uuid& id) = 0;

  // In one snapshot, so that it is exact while events are stored.
  virtual StoreResult<UsageSums> sum_usage(const Uuid& org_id, std::span<const HourRange> hours) = 0;
};

StoreResult<std::unique_ptr<StoreAudit>> audit_sqlite(const std::string& path);
StoreResult<std::unique_ptr<StoreAudit>> audit_postgres(const std::string& url, std::int64_t timeout_ms);

}  // namespace kavach::sink
