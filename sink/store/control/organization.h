// What an organization's people may change of it, and its budgets.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/clock.h"
#include "sink/store/control/control_store.h"

namespace kavach::sink {

struct OrgSettings {
  std::string org_id, org_name, timezone, tier;
};
StoreResult<OrgSettings> org_settings(ControlStore& store, std::string_view org_id);
// Absent: it stays as it is.
StoreResult<void> set_org_settings(ControlStore& store, std::string_view org_id,
                                   std::optional<std::string_view> org_name,
                                   std::optional<std::string_view> timezone);

// A budget of the organization itself, with what its nodes have admitted in its period (UTC) so far.
struct OrgBudget {
  std::string id, type, period, unit, source;
  double limit = 0;
  double used = 0;  // in the unit of the limit
  WallMicros created_at = 0, updated_at = 0;
};
StoreResult<std::vector<OrgBudget>> org_budgets(ControlStore& store, std::string_view org_id);
struct PutBudget {
  bool created = false;
  OrgBudget budget = {};
};
// One of a type and period takes the place of the one before it.
StoreResult<PutBudget> put_org_budget(ControlStore& store, std::string_view org_id, std::string_view type,
                                      std::string_view period, double limit, std::string_view unit);
// False: the organization has no such budget.
StoreResult<bool> drop_org_budget(ControlStore& store, std::string_view org_id, std::string_view id);

}  // namespace kavach::sink
