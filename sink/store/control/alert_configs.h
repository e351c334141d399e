// Alert configurations: which channel is told when how much of a budget is used. Everything is one
// organization's.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/clock.h"
#include "sink/store/control/control_store.h"
#include "sink/store/store.h"

namespace kavach::sink {

struct AlertConfig {
  std::string id;          // of the table
  std::string agent_name;  // empty: of the organization
  std::string channel;
  double threshold = 0;  // a fraction
  std::string budget_type;
  std::string target_sealed;  // empty: none
  std::string target_hash;    // SHA-256 of the target in hexadecimal; empty: none
  std::string secret_sealed;  // empty: none
  bool is_active = true;
  std::string source;  // sdk, dashboard
  WallMicros created_at = 0;
};

// By agent (those of the organization first), channel and threshold.
StoreResult<std::vector<AlertConfig>> alert_configs(ControlStore& store, std::string_view org_id);
// Of `agent_name` alone; empty: of the organization.
StoreResult<std::vector<AlertConfig>> agent_alert_configs(ControlStore& store, std::string_view org_id,
                                                          std::string_view agent_name);

// The dashboard's: makes it, or takes over the one with the same agent, channel, threshold, budget and
// target, which keeps its id. `keep_secret`: that one's secret stays. Of `config`, id, source and created_at
// are set here.
StoreResult<AlertConfig> put_alert_config(ControlStore& store, std::string_view org_id, AlertConfig config,
                                          bool keep_secret);

}  // namespace kavach::sink
