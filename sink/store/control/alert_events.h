// Alert events: what fired, and whether its message arrived. Everything is one organization's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/clock.h"
#include "sink/store/control/control_store.h"
#include "sink/store/store.h"

namespace kavach::sink {

// Empty texts are NULL in the table.
struct AlertEvent {
  std::string id;          // of the table
  std::string agent_name;  // empty: of the organization
  std::string config_id;
  std::string channel;              // email, slack, pagerduty, webhook, kill
  std::optional<double> threshold;  // a fraction
  std::string budget_type;
  std::string level;  // WARN, ALERT, CRITICAL
  std::optional<double> current;
  std::optional<double> limit;
  std::string period;
  std::string period_key;
  std::string message;
  bool delivered = false;
  std::string error;
  WallMicros created_at = 0;
};

// Inserts one row; its `id` and `created_at` are made here. The new id. May be called in a transaction.
StoreResult<std::string> add_alert_event(ControlStore& store, std::string_view org_id,
                                         const AlertEvent& event);

struct AlertEvents {
  std::vector<AlertEvent> newest;  // newest first
  std::int64_t total = 0;          // that there are
};
// Since `from`.
StoreResult<AlertEvents> alert_events(ControlStore& store, std::string_view org_id, WallMicros from,
                                      std::int64_t limit);
StoreResult<AlertEvents> agent_alert_events(ControlStore& store, std::string_view org_id,
                                            std::string_view agent_name, std::int64_t limit);

}  // namespace kavach::sink
