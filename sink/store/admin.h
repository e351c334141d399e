// Administration: an organization's tier, subscription, limits, budgets and killed agents, changed in SQL.
//
// All of it is cold path, so each call prepares what it needs. Every change is one transaction, and the
// triggers of sink/store/migrations/ tell all processes of it. What the calls promise: sink/store/store.h.
#pragma once

#include <string_view>
#include <vector>

#include "engine/clock.h"
#include "engine/ids.h"
#include "sink/store/sql.h"
#include "sink/store/store.h"

namespace kavach::sink {

StoreResult<OrgDetails> show_org(Connection& connection, const Uuid& org_id);
StoreResult<OrgDetails> change_org(Connection& connection, const Uuid& org_id, const OrgChange& change,
                                   WallMicros now);

StoreResult<BudgetRecord> upsert_budget(Connection& connection, const Uuid& org_id, std::string_view type,
                                        std::string_view period, double limit, WallMicros now,
                                        Random& random);
StoreResult<BudgetRecord> delete_budget(Connection& connection, const Uuid& org_id, std::string_view type,
                                        std::string_view period);
StoreResult<std::vector<BudgetRecord>> list_budgets(Connection& connection, const Uuid& org_id);

StoreResult<AgentState> kill_agent(Connection& connection, const Uuid& org_id, std::string_view name,
                                   std::string_view reason, WallMicros now);
StoreResult<AgentState> reactivate_agent(Connection& connection, const Uuid& org_id, std::string_view name);

}  // namespace kavach::sink
