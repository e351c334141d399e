// What an organization used within a time, from the aggregates by hour and minute (contract/entities.md
// section 5): the work depends on how many hours, agents and models there are, never on how many events.
//
// Times are exact to the minute as long as usage_minute has their minutes. An older time within an hour
// cannot split it: the hour belongs to where it starts.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/clock.h"
#include "engine/money.h"
#include "sink/store/control/control_store.h"

namespace kavach::sink {

// Saturates.
struct UsageSums {
  std::int64_t events = 0, errors = 0;
  std::int64_t timed_events = 0;  // those that say how long they took
  NanoDollars cost = 0;
  std::int64_t input_tokens = 0, output_tokens = 0, duration_ms = 0;

  UsageSums& operator+=(const UsageSums& other) noexcept;
  UsageSums& operator-=(const UsageSums& other) noexcept;
};

// From `from` on, before `to`.
struct TimeRange {
  WallMicros from = 0, to = 0;
};

// `range` widened to whole minutes, or to whole hours where their minutes are not kept any more.
TimeRange widened(const ControlStore& store, TimeRange range) noexcept;

struct RangeUsage {
  UsageSums sums = {};
  std::int64_t active_agents = 0;
};
StoreResult<RangeUsage> usage_in(ControlStore& store, std::string_view org_id, TimeRange range);

// The usage between each two neighbours of `edges`, which ascend.
StoreResult<std::vector<UsageSums>> usage_between(ControlStore& store, std::string_view org_id,
                                                  std::span<const WallMicros> edges);

// The most expensive ones, the first by name among equals.
struct ModelUsage {
  std::string model, provider;
  UsageSums sums = {};
};
StoreResult<std::vector<ModelUsage>> top_models(ControlStore& store, std::string_view org_id, TimeRange range,
                                                std::int64_t limit);
struct NamedUsage {
  std::string name;
  UsageSums sums = {};
};
StoreResult<std::vector<NamedUsage>> top_agents(ControlStore& store, std::string_view org_id, TimeRange range,
                                                std::int64_t limit);

}  // namespace kavach::sink
