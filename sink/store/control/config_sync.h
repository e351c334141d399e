// Config sync: what an agent's SDK says of its budgets and alerts takes the place of what it said before.
//
// Rows of source 'sdk' are replaced, those of 'dashboard' stay, but for one with the same key as a row of the
// SDK: that becomes the SDK's. Rows that are as they should be are not touched, and keep their ids.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sink/store/control/alert_configs.h"
#include "sink/store/control/control_store.h"
#include "sink/store/store.h"

namespace kavach::sink {

struct SyncedBudget {
  std::string type;
  std::string period;
  std::string unit;
  double limit = 0;
};

struct ConfigSync {
  std::string agent_name;
  // Of several with the same key the last one counts. Of an alert id, agent_name, source and created_at are
  // set here.
  std::vector<SyncedBudget> budgets;
  std::vector<AlertConfig> alerts;
  std::optional<SyncedBudget> org_budget;              // absent: the organization's budgets stay
  std::optional<std::vector<AlertConfig>> org_alerts;  // absent: the organization's alerts stay
};

struct ConfigSynced {
  std::size_t budgets = 0;  // what the SDK has now, likewise below
  std::size_t alerts = 0;
  std::size_t org_alerts = 0;
  bool org_budget_changed = false;
};

// Whether two sealed texts are the same text.
using SameText = std::function<bool(std::string_view stored, std::string_view given)>;

// One transaction, and none that writes when nothing is to change. The agent is made when it is not there;
// one that is killed stays so. Several at the same time come one after the other.
StoreResult<ConfigSynced> sync_config(ControlStore& store, std::string_view org_id, ConfigSync sync,
                                      const SameText& same_text);

}  // namespace kavach::sink
