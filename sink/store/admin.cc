#include "sink/store/admin.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "sink/store/directory_tables.h"

namespace kavach::sink {
namespace {

// What an organization's budget counts, and in which unit (contract/agentkavach.md 3.1 and 7).
constexpr std::pair<std::string_view, std::string_view> kUnits[] = {
    {"cost", "usd"},    {"tokens_total", "tokens"}, {"tokens_input", "tokens"}, {"tokens_output", "tokens"},
    {"calls", "calls"}, {"duration", "ms"}};
constexpr std::string_view kPeriods[] = {"daily", "monthly", "total"};

StoreFailure refused(std::string message) {
  return {std::move(message), false};
}

template <typename... Values>
StoreResult<std::int64_t> run_once(Connection& connection, std::string_view sql, const Values&... values) {
  auto statement = connection.prepare(sql);
  if (!statement) return statement.error();
  return statement->run(values...);
}

// A write transaction on an organization that is there.
StoreResult<Transaction> begin_change(Connection& connection, const Uuid& org_id) {
  auto transaction = Transaction::begin_write(connection);
  if (!transaction) return transaction.error();
  auto count =
      connection.prepare("SELECT COUNT(*) FROM organizations WHERE id = ?1 AND deleted_at_us IS NULL");
  if (!count) return count.error();
  auto found = count->scalar(UuidText(org_id));
  if (!found) return found.error();
  if (*found == 0) return no_org(org_id);
  return transaction;
}

StoreResult<void> set_tier(Connection& connection, const UuidText& org, std::string_view tier,
                           WallMicros now) {
  for (const std::string_view sql :
       {"UPDATE organizations SET tier = ?2, updated_at_us = ?3 WHERE id = ?1",
        "UPDATE subscriptions SET tier = ?2, updated_at_us = ?3 WHERE org_id = ?1"}) {
    if (auto ran = run_once(connection, sql, org, tier, now); !ran) return ran.error();
  }
  return {};
}

// A status that stays keeps the time at which it began.
StoreResult<void> set_status(Connection& connection, const UuidText& org, std::string_view status,
                             WallMicros now) {
  auto ran = run_once(
      connection,
      "INSERT INTO subscriptions (org_id, tier, status, paused_at_us, cancelled_at_us, updated_at_us) "
      "SELECT id, tier, ?2, CASE WHEN ?2 = 'paused' THEN CAST(?3 AS BIGINT) END, CASE WHEN ?2 = 'cancelled' "
      "THEN CAST(?3 AS BIGINT) END, CAST(?3 AS BIGINT) "
      "FROM organizations WHERE id = ?1 "
      "ON CONFLICT (org_id) DO UPDATE SET status = excluded.status, paused_at_us = excluded.paused_at_us, "
      "cancelled_at_us = excluded.cancelled_at_us, updated_at_us = excluded.updated_at_us "
      "WHERE subscriptions.status <> excluded.status",
      org, status, now);
  if (!ran) return ran.error();
  return {};
}

StoreResult<void> set_limits(Connection& connection, const UuidText& org, const OrgLimits& limits,
                             WallMicros now) {
  const bool has_own = limits.events_per_day || limits.agents_max || limits.burst_per_minute;
  auto ran = has_own
                 ? run_once(connection,
                            "INSERT INTO org_limits (org_id, events_per_day, max_agents, burst_per_minute, "
                            "updated_at_us) VALUES (?1, ?2, ?3, ?4, ?5) "
                            "ON CONFLICT (org_id) DO UPDATE SET events_per_day = excluded.events_per_day, "
                            "max_agents = excluded.max_agents, burst_per_minute = excluded.burst_per_minute, "
                            "updated_at_us = excluded.updated_at_us",
                            org, limits.events_per_day, limits.agents_max, limits.burst_per_minute, now)
                 : run_once(connection, "DELETE FROM org_limits WHERE org_id = ?1", org);
  if (!ran) return ran.error();
  return {};
}

StoreResult<std::optional<BudgetRecord>> find_budget(Connection& connection, const Uuid& org_id,
                                                     std::string_view type, std::string_view period) {
  auto budgets = load_budgets(connection, &org_id);
  if (!budgets) return budgets.error();
  const auto found = std::find_if(budgets->begin(), budgets->end(), [&](const BudgetRecord& budget) {
    return budget.type == type && budget.period == period;
  });
  if (found == budgets->end()) return std::optional<BudgetRecord>();
  return std::optional(std::move(*found));
}

StoreResult<std::optional<AgentState>> find_agent(Connection& connection, const Uuid& org_id,
                                                  std::string_view name) {
  auto select =
      connection.prepare("SELECT killed_at_us, kill_reason FROM agents WHERE org_id = ?1 AND name = ?2");
  if (!select) return select.error();
  std::optional<AgentState> agent;
  auto read = select->for_each(
      [&](const Statement::Rows& row) {
        agent = AgentState{org_id, std::string(name), row.optional_integer(0), std::string(row.text(1))};
      },
      UuidText(org_id), name);
  if (!read) return read.error();
  return agent;
}

}  // namespace

StoreResult<OrgDetails> show_org(Connection& connection, const Uuid& org_id) {
  auto transaction = Transaction::begin_read(connection);
  if (!transaction) return transaction.error();
  return load_org(connection, org_id);
}

StoreResult<OrgDetails> change_org(Connection& connection, const Uuid& org_id, const OrgChange& change,
                                   WallMicros now) {
  auto transaction = begin_change(connection, org_id);
  if (!transaction) return transaction.error();
  const UuidText org(org_id);
  if (change.tier) {
    if (auto set = set_tier(connection, org, *change.tier, now); !set) return set.error();
  }
  if (change.subscription_status) {
    if (auto set = set_status(connection, org, *change.subscription_status, now); !set) return set.error();
  }
  auto changed = load_org(connection, org_id);
  if (!changed) return changed.error();
  if (change.events_per_day || change.agents_max || change.burst_per_minute) {
    OrgLimits& limits = changed->org.limits;
    limits.events_per_day = change.events_per_day.value_or(limits.events_per_day);
    limits.agents_max = change.agents_max.value_or(limits.agents_max);
    limits.burst_per_minute = change.burst_per_minute.value_or(limits.burst_per_minute);
    if (auto set = set_limits(connection, org, limits, now); !set) return set.error();
  }
  if (auto committed = transaction->commit(); !committed) return committed.error();
  return changed;
}

StoreResult<BudgetRecord> upsert_budget(Connection& connection, const Uuid& org_id, std::string_view type,
                                        std::string_view period, double limit, WallMicros now,
                                        Random& random) {
  const auto* const unit = std::find_if(std::begin(kUnits), std::end(kUnits),
                                        [type](const auto& known) { return known.first == type; });
  if (unit == std::end(kUnits)) {
    return refused(fmt::format("'{}' is no type of an organization's budget", type));
  }
  if (std::find(std::begin(kPeriods), std::end(kPeriods), period) == std::end(kPeriods)) {
    return refused(fmt::format("'{}' is no period of an organization's budget", period));
  }
  if (!std::isfinite(limit) || limit <= 0) {
    return refused(fmt::format("{} is no limit of a budget: it must be a finite number above 0", limit));
  }
  auto transaction = begin_change(connection, org_id);
  if (!transaction) return transaction.error();
  auto ran = run_once(
      connection,
      "INSERT INTO budgets (id, kind, org_id, budget_type, period, limit_value, unit, created_at_us, "
      "updated_at_us) VALUES (?1, 'ak', ?2, ?3, ?4, ?5, ?6, ?7, ?7) "
      "ON CONFLICT (org_id, agent_name, budget_type, period) WHERE kind = 'ak' "
      "DO UPDATE SET limit_value = excluded.limit_value, unit = excluded.unit, source = excluded.source, "
      "updated_at_us = excluded.updated_at_us",
      UuidText(make_uuid7(now, random)), UuidText(org_id), type, period, limit, unit->second, now);
  if (!ran) return ran.error();
  auto budget = find_budget(connection, org_id, type, period);
  if (!budget) return budget.error();
  if (auto committed = transaction->commit(); !committed) return committed.error();
  return std::move(**budget);
}

StoreResult<BudgetRecord> delete_budget(Connection& connection, const Uuid& org_id, std::string_view type,
                                        std::string_view period) {
  auto transaction = begin_change(connection, org_id);
  if (!transaction) return transaction.error();
  auto budget = find_budget(connection, org_id, type, period);
  if (!budget) return budget.error();
  if (!*budget) {
    return refused(fmt::format("organization {} has no budget of type '{}' and period '{}'", org_id.text(),
                               type, period));
  }
  auto ran = run_once(connection, "DELETE FROM budgets WHERE id = ?1", std::string_view((*budget)->id));
  if (!ran) return ran.error();
  if (auto committed = transaction->commit(); !committed) return committed.error();
  return std::move(**budget);
}

StoreResult<std::vector<BudgetRecord>> list_budgets(Connection& connection, const Uuid& org_id) {
  auto details = show_org(connection, org_id);
  if (!details) return details.error();
  return std::move(details->budgets);
}

StoreResult<AgentState> kill_agent(Connection& connection, const Uuid& org_id, std::string_view name,
                                   std::string_view reason, WallMicros now) {
  auto transaction = begin_change(connection, org_id);
  if (!transaction) return transaction.error();
  auto ran = run_once(connection,
                      "INSERT INTO agents (org_id, name, first_seen_us, killed_at_us, kill_reason) VALUES "
                      "(?1, ?2, ?3, ?3, ?4) "
                      "ON CONFLICT (org_id, name) DO UPDATE SET "
                      "killed_at_us = COALESCE(agents.killed_at_us, excluded.killed_at_us), "
                      "kill_reason = COALESCE(excluded.kill_reason, agents.kill_reason)",
                      UuidText(org_id), name, now, NullableText{reason});
  if (!ran) return ran.error();
  auto agent = find_agent(connection, org_id, name);
  if (!agent) return agent.error();
  if (auto committed = transaction->commit(); !committed) return committed.error();
  return std::move(**agent);
}

StoreResult<AgentState> reactivate_agent(Connection& connection, const Uuid& org_id, std::string_view name) {
  auto transaction = begin_change(connection, org_id);
  if (!transaction) return transaction.error();
  auto ran = run_once(
      connection, "UPDATE agents SET killed_at_us = NULL, kill_reason = NULL WHERE org_id = ?1 AND name = ?2",
      UuidText(org_id), name);
  if (!ran) return ran.error();
  auto agent = find_agent(connection, org_id, name);
  if (!agent) return agent.error();
  if (!*agent) return refused(fmt::format("organization {} has no agent '{}'", org_id.text(), name));
  if (auto committed = transaction->commit(); !committed) return committed.error();
  return std::move(**agent);
}

}  // namespace kavach::sink
