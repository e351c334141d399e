// Event list: pages of single events, found by an index, and how many there are.
//
// A page is read along an index of `events` and no longer than it is. What an agent has altogether is counted
// in the hours of usage_hourly; only the two hours that a period cuts are counted event by event.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sink/store/control/control_store.h"

namespace kavach::sink {

struct EventRow {
  std::string id, agent_name, provider, model, run_id, prompt;  // empty: none
  std::int64_t input_tokens = 0, output_tokens = 0, duration_ms = 0;
  std::int64_t cost = 0;  // nano-dollars
  bool is_error = false;
  WallMicros timestamp = 0;
};
struct EventPage {
  std::vector<EventRow> events;
  std::int64_t total = 0;  // of all pages
};

struct EventFilter {
  std::optional<bool> is_error = {};
  std::string_view run_id = {};                                        // empty: all
  WallMicros start = 0, end = std::numeric_limits<WallMicros>::max();  // [start, end)
  std::int64_t limit = 0, offset = 0;
};
// Newest first.
StoreResult<EventPage> agent_events(ControlStore& store, std::string_view org_id, std::string_view agent_name,
                                    const EventFilter& filter);
// Oldest first. REQUIRES: the organization has the run.
StoreResult<EventPage> run_events(ControlStore& store, std::string_view org_id, std::string_view run_id,
                                  std::int64_t limit, std::int64_t offset);

}  // namespace kavach::sink
