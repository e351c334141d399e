// What an organization's people may change of it, and its budgets.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sink/store/control/budget_row.h"
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

// The organization's own budgets, with what its nodes have admitted in their periods so far.
StoreResult<std::vector<BudgetRow>> org_budgets(ControlStore& store, std::string_view org_id);
struct PutBudget {
  bool created = false;
  BudgetRow budget = {};
};
// One of a type and period takes the place of the one before it.
StoreResult<PutBudget> put_org_budget(ControlStore& store, std::string_view org_id, std::string_view type,
                                      std::string_view period, double limit, std::string_view unit);
// False: the organization has no such budget.
StoreResult<bool> drop_org_budget(ControlStore& store, std::string_view org_id, std::string_view id);

}  // namespace kavach::sink
