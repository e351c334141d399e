// Directory tables: organizations, projects, subscriptions and API keys in SQL, and reading them together
// with their limits (sink/store/admin.h changes these).
//
// All of it is cold path: start-up, a poll that found a new version, an administrator's command. So each call
// prepares what it needs. What the calls promise: sink/store/store.h.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "engine/clock.h"
#include "engine/ids.h"
#include "sink/store/sql.h"
#include "sink/store/store.h"

namespace kavach::sink {

StoreResult<Directory> load_directory(Connection& connection);
StoreResult<OrgDetails> load_org(Connection& connection, const Uuid& org_id);
// Budgets of whole organizations: of all, or of `*only`.
StoreResult<std::vector<BudgetRecord>> load_budgets(Connection& connection, const Uuid* only);
StoreFailure no_org(const Uuid& org_id);

StoreResult<void> record_key_use(Connection& connection, std::span<const KeyUse> uses);
StoreResult<void> record_rejections(Connection& connection, std::span<const RejectedAgent> rejected);

StoreResult<OrgRecord> create_org(Connection& connection, std::string_view name, std::string_view tier,
                                  const NewKey& first_key, WallMicros now, Random& random);
StoreResult<KeySummary> create_key(Connection& connection, const Uuid& org_id, const NewKey& key,
                                   WallMicros now, Random& random);
StoreResult<KeySummary> revoke_key(Connection& connection, std::string_view id_or_prefix, WallMicros now);

}  // namespace kavach::sink
