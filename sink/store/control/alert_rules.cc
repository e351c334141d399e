#include "sink/store/control/alert_rules.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/calendar.h"
#include "engine/timestamp.h"
#include "sink/store/control/agents.h"
#include "sink/store/control/alert_events.h"
#include "sink/store/control/organization.h"

namespace kavach::sink {
namespace {

// How many of an agent's runs are looked at when it is not known which have changed.
constexpr std::int64_t kRecentRunsMax = 100;

std::string period_key(std::string_view period, WallMicros at) {
  if (period != "daily" && period != "monthly") return "total";
  return format_timestamp(at).substr(0, period == "daily" ? 10 : 7);  // 2026-05-25, 2026-05
}

// What alert_fired knows a rule by.
struct RuleKey {
  explicit RuleKey(std::string_view org_id, const AlertConfig& rule, std::string_view period)
      : config(fmt::format("{}/{}/{}/{}", rule.channel, rule.threshold, rule.budget_type, rule.target_hash)),
        scope(fmt::format("{}/{}", org_id, rule.agent_name)),
        cooldown(fmt::format("last of {}", period)) {}

  std::string config, scope;
  std::string cooldown;  // the period key of the row that says when it fired last
};

enum class Readiness : std::uint8_t { kDue, kFired, kCoolingDown };

StoreResult<Readiness> readiness(ControlStore& store, std::string_view org_id, const CrossedRule& crossed) {
  const RuleKey key(org_id, crossed.rule, crossed.budget.period);
  Readiness found = Readiness::kDue;
  auto read = store.each(
      "SELECT period_key, fired_at_us FROM alert_fired WHERE config_id = ?1 AND scope_key = ?2 AND "
      "period_key "
      "IN (?3, ?4)",
      [&](const Statement::Rows& row) {
        if (row.text(0) == crossed.period_key) {
          found = Readiness::kFired;
        } else if (row.integer(1) > crossed.at - kAlertCooldownUs && found == Readiness::kDue) {
          found = Readiness::kCoolingDown;
        }
      },
      std::string_view(key.config), std::string_view(key.scope), std::string_view(crossed.period_key),
      std::string_view(key.cooldown));
  if (!read) return read.error();
  return found;
}

RunUse run_of(const Statement::Rows& row) {
  return {.run_id = std::string(row.text(0)),
          .agent_name = std::string(row.text(1)),
          .use = {.events = row.integer(2),
                  .cost = row.integer(3),
                  .input_tokens = row.integer(4),
                  .output_tokens = row.integer(5),
                  .duration_ms = row.integer(6)}};
}

#define KAVACH_RUNS                                                                                    \
  "SELECT run_id, agent_name, total_events, cost_nano, input_tokens, output_tokens, llm_duration_ms, " \
  "last_event_us FROM runs WHERE org_id = ?1 AND "

}  // namespace

StoreResult<std::vector<RunUse>> runs_by_id(ControlStore& store, std::string_view org_id,
                                            std::span<const std::string> ids) {
  std::vector<RunUse> runs;
  for (const std::string& id : ids) {
    auto read = store.each(
        KAVACH_RUNS "run_id = ?2", [&runs](const Statement::Rows& row) { runs.push_back(run_of(row)); },
        org_id, std::string_view(id));
    if (!read) return read.error();
  }
  return runs;
}

StoreResult<std::vector<RunUse>> recent_runs(ControlStore& store, std::string_view org_id,
                                             std::string_view agent_name, WallMicros since) {
  std::vector<RunUse> runs;
  auto read = store.each(
      "SELECT * FROM (" KAVACH_RUNS
      "agent_name = ?2 ORDER BY first_event_us DESC LIMIT ?4) AS newest WHERE last_event_us >= ?3",
      [&runs](const Statement::Rows& row) { runs.push_back(run_of(row)); }, org_id, agent_name, since,
      kRecentRunsMax);
  if (!read) return read.error();
  return runs;
}

#undef KAVACH_RUNS

StoreResult<bool> has_run_budgets(ControlStore& store, std::string_view org_id) {
  auto found = store.scalar(
      "SELECT CASE WHEN EXISTS (SELECT 1 FROM budgets WHERE org_id = ?1 AND kind = 'ak' AND period = "
      "'per_run') THEN 1 ELSE 0 END",
      org_id);
  if (!found) return found.error();
  return *found == 1;
}

StoreResult<CrossedRules> find_crossed_rules(ControlStore& store, std::string_view org_id,
                                             std::string_view agent_name, std::span<const RunUse> runs) {
  CrossedRules found;
  auto rules = agent_alert_configs(store, org_id, agent_name);
  if (!rules) return rules.error();
  std::erase_if(*rules, [](const AlertConfig& rule) { return !rule.is_active || rule.threshold <= 0; });
  if (rules->empty()) return found;
  // Before the use is read: at midnight the new day's use must not fire for the old day with its key.
  const WallMicros now = store.now();
  auto budgets = agent_name.empty() ? org_budgets(store, org_id) : agent_budgets(store, org_id, agent_name);
  if (!budgets) return budgets.error();

  const auto look_at = [&](const BudgetRow& budget, const std::string& key) -> StoreResult<void> {
    if (budget.limit <= 0) return {};
    for (const AlertConfig& rule : *rules) {
      if (rule.budget_type != budget.type || budget.used / budget.limit < rule.threshold) continue;
      CrossedRule crossed{.rule = rule, .budget = budget, .period_key = key, .at = now};
      const auto ready = readiness(store, org_id, crossed);
      if (!ready) return ready.error();
      // Another run waits for nothing: whether it is still crossed is seen with its next event.
      if (*ready == Readiness::kCoolingDown && budget.period != "per_run") found.some_wait = true;
      if (*ready == Readiness::kDue) found.due.push_back(std::move(crossed));
    }
    return {};
  };
  for (BudgetRow& budget : *budgets) {
    if (budget.type == "loops") continue;  // the SDK counts them
    if (budget.period != "per_run") {
      if (auto seen = look_at(budget, period_key(budget.period, now)); !seen) return seen.error();
      continue;
    }
    for (const RunUse& run : runs) {
      budget.used = run.use.of(budget.type);
      if (auto seen = look_at(budget, "run:" + run.run_id); !seen) return seen.error();
    }
  }
  std::stable_sort(found.due.begin(), found.due.end(), [](const CrossedRule& a, const CrossedRule& b) {
    return a.rule.threshold < b.rule.threshold;
  });
  return found;
}

StoreResult<bool> fire(ControlStore& store, std::string_view org_id, const CrossedRule& crossed,
                       const Firing& firing) {
  const RuleKey key(org_id, crossed.rule, crossed.budget.period);
  return store.in_transaction([&]() -> StoreResult<bool> {
    auto is_first = store.run(
        "INSERT INTO alert_fired (config_id, scope_key, period_key, fired_at_us) VALUES (?1, ?2, ?3, ?4) "
        "ON CONFLICT DO NOTHING",
        std::string_view(key.config), std::string_view(key.scope), std::string_view(crossed.period_key),
        crossed.at);
    if (!is_first) return is_first.error();
    if (*is_first == 0) return false;
    auto is_calm = store.run(
        "INSERT INTO alert_fired (config_id, scope_key, period_key, fired_at_us) VALUES (?1, ?2, ?3, ?4) "
        "ON CONFLICT (config_id, scope_key, period_key) DO UPDATE SET fired_at_us = excluded.fired_at_us "
        "WHERE alert_fired.fired_at_us <= ?5",
        std::string_view(key.config), std::string_view(key.scope), std::string_view(key.cooldown), crossed.at,
        crossed.at - kAlertCooldownUs);
    if (!is_calm) return is_calm.error();
    if (*is_calm == 0) {
      auto undone = store.run(
          "DELETE FROM alert_fired WHERE config_id = ?1 AND scope_key = ?2 AND period_key = ?3",
          std::string_view(key.config), std::string_view(key.scope), std::string_view(crossed.period_key));
      if (!undone) return undone.error();
      return false;
    }
    AlertEvent noted;
    noted.agent_name = crossed.rule.agent_name;
    noted.config_id = crossed.rule.id;
    noted.channel = crossed.rule.channel;
    noted.threshold = crossed.rule.threshold;
    noted.budget_type = crossed.rule.budget_type;
    noted.level = firing.level;
    noted.current = crossed.budget.used;
    noted.limit = crossed.budget.limit;
    noted.period = crossed.budget.period;
    noted.period_key = crossed.period_key;
    noted.message = firing.message;
    noted.delivered = !firing.delivery && firing.error.empty();
    noted.error = firing.error;
    auto event = add_alert_event(store, org_id, noted);
    if (!event) return event.error();
    if (firing.delivery) {
      Delivery delivery = *firing.delivery;
      delivery.org_id = org_id;
      delivery.channel = crossed.rule.channel;
      delivery.alert_id = std::move(*event);
      if (auto added = add_delivery(store, delivery); !added) return added.error();
    }
    if (!firing.announcement.empty()) {
      Delivery delivery;
      delivery.org_id = org_id;
      delivery.channel = kAnnouncementChannel;
      delivery.body = firing.announcement;
      if (auto added = add_delivery(store, delivery); !added) return added.error();
    }
    if (firing.kills) {
      constexpr std::string_view kReason = "alert rule";
      auto killed = crossed.rule.agent_name.empty()
                        ? store.run(
                              "UPDATE agents SET killed_at_us = ?2, kill_reason = ?3 WHERE org_id = ?1 "
                              "AND killed_at_us IS NULL AND last_received_us >= ?4",
                              org_id, crossed.at, kReason, crossed.at - kMicrosPerDay)
                        : store.run(
                              "UPDATE agents SET killed_at_us = ?2, kill_reason = ?3 WHERE org_id = ?1 "
                              "AND killed_at_us IS NULL AND name = ?4",
                              org_id, crossed.at, kReason, std::string_view(crossed.rule.agent_name));
      if (!killed) return killed.error();
    }
    return true;
  });
}

StoreResult<std::vector<Watched>> watched_agents(ControlStore& store) {
  std::vector<Watched> watched;
  auto read =
      store.each("SELECT DISTINCT org_id, agent_name FROM alert_configs WHERE kind = 'ak' AND is_active = 1",
                 [&watched](const Statement::Rows& row) {
                   watched.push_back({std::string(row.text(0)), std::string(row.text(1))});
                 });
  if (!read) return read.error();
  return watched;
}

StoreResult<std::string> owner_address(ControlStore& store, std::string_view org_id) {
  std::string address;
  auto read = store.each(
      "SELECT u.email FROM org_members m JOIN users u ON u.id = m.user_id WHERE m.org_id = ?1 AND m.role = "
      "'owner' AND u.is_deleted = 0 ORDER BY m.created_at_us LIMIT 1",
      [&address](const Statement::Rows& row) { address = row.text(0); }, org_id);
  if (!read) return read.error();
  return address;
}

}  // namespace kavach::sink
