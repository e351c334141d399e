#include "sink/store/control/agents.h"

#include <algorithm>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "engine/calendar.h"
#include "sink/store/control/alert_events.h"
#include "sink/store/control/buckets.h"
#include "sink/store/sum_in_parts.h"

namespace kavach::sink {
namespace {

std::int64_t seconds(WallMicros at) noexcept {
  return at / kMicrosPerSecond;
}

// UTC, like all periods of budgets.
WallMicros day_began(WallMicros now) noexcept {
  return start_of_day(day_of(now));
}
WallMicros month_began(WallMicros now) noexcept {
  return start_of_month(month_of(now));
}

int rank(std::string_view period) noexcept {
  return period == "daily" ? 0 : period == "monthly" ? 1 : 2;
}

StoreResult<void> read_agents(ControlStore& store, std::string_view org_id,
                              std::optional<std::string_view> only, std::vector<AgentRow>& agents) {
  const auto add = [&agents](const Statement::Rows& row) {
    AgentRow agent;
    agent.name = row.text(0);
    agent.provider = row.text(1);
    agent.model = row.text(2);
    agent.events = row.integer(3);
    agent.errors = row.integer(4);
    agent.cost = row.integer(5);
    agent.input_tokens = row.integer(6);
    agent.output_tokens = row.integer(7);
    agent.duration_ms = row.integer(8);
    agent.last_event = row.optional_integer(9);
    agent.last_received = row.optional_integer(10);
    agent.killed_at = row.optional_integer(11);
    agent.rejected_at = row.optional_integer(12);
    agent.has_kill_switch = row.integer(13) != 0;
    agents.push_back(std::move(agent));
  };
#define KAVACH_AGENTS                                                                                       \
  "SELECT a.name, a.provider, a.model, a.total_events, a.total_errors, a.total_cost_nano, "                 \
  "a.total_input_tokens, a.total_output_tokens, a.total_duration_ms, a.last_event_us, a.last_received_us, " \
  "a.killed_at_us, a.rejected_at_us, CASE WHEN EXISTS (SELECT 1 FROM alert_configs c WHERE c.org_id = ?1 "  \
  "AND c.kind = 'ak' AND c.agent_name = a.name AND c.channels = 'kill' AND c.is_active = 1) THEN 1 ELSE 0 " \
  "END FROM agents a WHERE a.org_id = ?1"
  return only ? store.each(KAVACH_AGENTS " AND a.name = ?2", add, org_id, *only)
              : store.each(KAVACH_AGENTS, add, org_id);
#undef KAVACH_AGENTS
}

struct PeriodCost {
  std::int64_t day = 0, month = 0;  // UTC
};
using Found = std::unordered_map<std::string_view, std::pair<AgentRow*, PeriodCost>>;

// ?1 to ?5: see buckets.h; then where today, the week and the month begin, the range, and the day and month
// of budgets.
std::string usage_sql(const std::string& more) {
  const auto since = [](const std::string& column, const std::string& from) {
    return sum_in_parts("CASE WHEN bucket_s >= " + from + " THEN " + column + " ELSE 0 END");
  };
  const auto in_range = [](const std::string& column) {
    return sum_in_parts("CASE WHEN bucket_s >= ?9 AND bucket_s < ?10 THEN " + column + " ELSE 0 END");
  };
  return "SELECT agent_name, " + since("cost_nano", "?6") + ", " + since("cost_nano", "?7") + ", " +
         since("cost_nano", "?8") + ", " + since("input_tokens", "?6") + ", " + since("output_tokens", "?6") +
         ", " + in_range("events") + ", " + in_range("cost_nano") + ", " + since("cost_nano", "?11") + ", " +
         since("cost_nano", "?12") + " FROM " + buckets_sql(more) + " GROUP BY agent_name";
}

StoreResult<void> read_usage(ControlStore& store, std::string_view org_id, const AgentWindows& windows,
                             std::optional<std::string_view> only, Found& found) {
  const WallMicros now = store.now();
  SplitHours split(now);
  split.add(windows.today);
  split.add(windows.range_start);
  split.add(windows.range_end);
  const WallMicros first = std::min(
      {windows.today, windows.week, windows.month, windows.range_start, day_began(now), month_began(now)});
  const auto add = [&found](const Statement::Rows& row) {
    const auto entry = found.find(row.text(0));
    if (entry == found.end()) return;
    auto& [agent, period] = entry->second;
    agent->cost_today = sum_at(row, 1);
    agent->cost_week = sum_at(row, 3);
    agent->cost_month = sum_at(row, 5);
    agent->input_tokens_today = sum_at(row, 7);
    agent->output_tokens_today = sum_at(row, 9);
    agent->range_events = sum_at(row, 11);
    agent->range_cost = sum_at(row, 13);
    period = {.day = sum_at(row, 15), .month = sum_at(row, 17)};
  };
  static const std::string of_all = usage_sql("");
  static const std::string of_one = usage_sql(" AND agent_name = ?13");
  const auto read = [&](const std::string& sql, const auto&... name) {
    return store.each(sql, add, org_id, seconds(first - first % kMicrosPerHour), split[0], split[1], split[2],
                      seconds(windows.today), seconds(windows.week), seconds(windows.month),
                      seconds(windows.range_start), seconds(windows.range_end), seconds(day_began(now)),
                      seconds(month_began(now)), name...);
  };
  return only ? read(of_one, *only) : read(of_all);
}

StoreResult<void> read_cost_budgets(ControlStore& store, std::string_view org_id, Found& found) {
  std::unordered_map<std::string_view, int> ranks;
  return store.each(
      "SELECT agent_name, period, limit_value FROM budgets WHERE org_id = ?1 AND kind = 'ak' AND "
      "agent_name <> '' AND budget_type = 'cost' AND period IN ('daily', 'monthly', 'total')",
      [&](const Statement::Rows& row) {
        const auto entry = found.find(row.text(0));
        if (entry == found.end()) return;
        auto& [agent, period] = entry->second;
        const int its_rank = rank(row.text(1));
        const auto [best, is_new] = ranks.try_emplace(entry->first, its_rank);
        if (!is_new && best->second < its_rank) return;
        best->second = its_rank;
        agent->budget_limit = row.number(2);
        const BudgetUse use{.cost = its_rank == 0 ? period.day : its_rank == 1 ? period.month : agent->cost};
        agent->budget_used = use.of("cost");
      },
      org_id);
}

}  // namespace

StoreResult<std::vector<AgentRow>> agents_of(ControlStore& store, std::string_view org_id,
                                             const AgentWindows& windows,
                                             std::optional<std::string_view> only) {
  std::vector<AgentRow> agents;
  if (auto read = read_agents(store, org_id, only, agents); !read) return read.error();
  Found found;
  for (AgentRow& agent : agents) found.emplace(agent.name, std::pair(&agent, PeriodCost{}));
  if (auto read = read_usage(store, org_id, windows, only, found); !read) return read.error();
  if (auto read = read_cost_budgets(store, org_id, found); !read) return read.error();
  std::sort(agents.begin(), agents.end(), [](const AgentRow& a, const AgentRow& b) {
    return a.cost_month != b.cost_month ? a.cost_month > b.cost_month : a.name < b.name;
  });
  return agents;
}

StoreResult<bool> has_agent(ControlStore& store, std::string_view org_id, std::string_view name) {
  auto found = store.scalar("SELECT COUNT(*) FROM agents WHERE org_id = ?1 AND name = ?2", org_id, name);
  if (!found) return found.error();
  return *found > 0;
}

StoreResult<std::string> newest_key_prefix(ControlStore& store, std::string_view org_id) {
  std::string prefix;
  auto read = store.each(
      "SELECT prefix FROM api_keys WHERE org_id = ?1 AND kind = 'ak' AND is_active = 1 ORDER BY "
      "created_at_us "
      "DESC, id DESC LIMIT 1",
      [&prefix](const Statement::Rows& row) { prefix = row.text(0); }, org_id);
  if (!read) return read.error();
  return prefix;
}

StoreResult<AgentDetail> agent_detail(ControlStore& store, std::string_view org_id, std::string_view name,
                                      WallMicros month, const std::vector<WallMicros>& days) {
  AgentDetail detail;
  SplitHours split(store.now());
  for (const WallMicros day : days) split.add(day);
  static const std::string of_models =
      "SELECT model, provider, " + sum_in_parts("events") + ", " + sum_in_parts("cost_nano") + ", " +
      sum_in_parts("input_tokens") + ", " + sum_in_parts("output_tokens") + ", " +
      sum_in_parts("duration_ms") + ", " + sum_in_parts("timed_events") +
      " FROM usage_hourly WHERE org_id = ?1 AND agent_name = ?2 AND hour_s >= ?3 GROUP BY model, provider";
  auto read = store.each(
      of_models,
      [&detail](const Statement::Rows& row) {
        detail.models.push_back({.model = std::string(row.text(0)),
                                 .provider = std::string(row.text(1)),
                                 .events = sum_at(row, 2),
                                 .cost = sum_at(row, 4),
                                 .input_tokens = sum_at(row, 6),
                                 .output_tokens = sum_at(row, 8)});
        detail.duration_ms = saturating_add(detail.duration_ms, sum_at(row, 10));
        detail.timed_events = saturating_add(detail.timed_events, sum_at(row, 12));
      },
      org_id, name, seconds(month));
  if (!read) return read.error();

  std::sort(detail.models.begin(), detail.models.end(), [](const ModelUse& a, const ModelUse& b) {
    return a.cost != b.cost       ? a.cost > b.cost
           : a.events != b.events ? a.events > b.events
                                  : std::tie(a.model, a.provider) < std::tie(b.model, b.provider);
  });

  static const std::string of_days = "SELECT bucket_s, " + sum_in_parts("events") + ", " +
                                     sum_in_parts("cost_nano") + " FROM " +
                                     buckets_sql(" AND agent_name = ?6") + " GROUP BY bucket_s";
  detail.days.resize(days.size() - 1);
  const WallMicros first = days.front();
  read = store.each(
      of_days,
      [&](const Statement::Rows& row) {
        const WallMicros at = row.integer(0) * kMicrosPerSecond;
        const auto next = std::upper_bound(days.begin(), days.end(), at);
        if (next == days.begin() || next == days.end()) return;
        DayUse& day = detail.days[static_cast<std::size_t>(next - days.begin()) - 1];
        day.events = saturating_add(day.events, sum_at(row, 1));
        day.cost = saturating_add(day.cost, sum_at(row, 3));
      },
      org_id, seconds(first - first % kMicrosPerHour), split[0], split[1], split[2], name);
  if (!read) return read.error();
  return detail;
}

StoreResult<std::vector<BudgetRow>> agent_budgets(ControlStore& store, std::string_view org_id,
                                                  std::string_view name) {
  std::vector<BudgetRow> budgets;
  auto read = store.each(
      "SELECT id, agent_name, budget_type, period, unit, source, limit_value, created_at_us, updated_at_us "
      "FROM budgets WHERE org_id = ?1 AND kind = 'ak' AND agent_name = ?2 ORDER BY budget_type, period",
      [&budgets](const Statement::Rows& row) {
        budgets.push_back({.id = std::string(row.text(0)),
                           .agent_name = std::string(row.text(1)),
                           .type = std::string(row.text(2)),
                           .period = std::string(row.text(3)),
                           .unit = std::string(row.text(4)),
                           .source = std::string(row.text(5)),
                           .limit = row.number(6),
                           .created_at = row.integer(7),
                           .updated_at = row.integer(8)});
      },
      org_id, name);
  if (!read) return read.error();
  if (budgets.empty()) return budgets;

  BudgetUse day, month, total, run;
  // From columns of sums in parts, or of whole ones.
  const auto of_parts = [](BudgetUse& use) {
    return [&use](const Statement::Rows& row) {
      use = {.events = sum_at(row, 0),
             .cost = sum_at(row, 2),
             .input_tokens = sum_at(row, 4),
             .output_tokens = sum_at(row, 6),
             .duration_ms = sum_at(row, 8)};
    };
  };
  const auto of_row = [](BudgetUse& use) {
    return [&use](const Statement::Rows& row) {
      use = {.events = row.integer(0),
             .cost = row.integer(1),
             .input_tokens = row.integer(2),
             .output_tokens = row.integer(3),
             .duration_ms = row.integer(4)};
    };
  };
  static const std::string since =
      "SELECT " + sum_in_parts("events") + ", " + sum_in_parts("cost_nano") + ", " +
      sum_in_parts("input_tokens") + ", " + sum_in_parts("output_tokens") + ", " +
      sum_in_parts("duration_ms") +
      " FROM usage_hourly WHERE org_id = ?1 AND agent_name = ?2 AND hour_s >= ?3";
  const WallMicros now = store.now();
  const auto has = [&budgets](std::string_view period) {
    return std::any_of(budgets.begin(), budgets.end(),
                       [period](const BudgetRow& budget) { return budget.period == period; });
  };
  if (has("daily")) {
    read = store.each(since, of_parts(day), org_id, name, seconds(day_began(now)));
    if (!read) return read.error();
  }
  if (has("monthly")) {
    read = store.each(since, of_parts(month), org_id, name, seconds(month_began(now)));
    if (!read) return read.error();
  }
  if (has("total")) {
    read = store.each(
        "SELECT total_events, total_cost_nano, total_input_tokens, total_output_tokens, total_duration_ms "
        "FROM agents WHERE org_id = ?1 AND name = ?2",
        of_row(total), org_id, name);
    if (!read) return read.error();
  }
  if (has("per_run")) {
    read = store.each(
        "SELECT total_events, cost_nano, input_tokens, output_tokens, llm_duration_ms FROM runs WHERE org_id "
        "= ?1 AND agent_name = ?2 ORDER BY first_event_us DESC LIMIT 1",
        of_row(run), org_id, name);
    if (!read) return read.error();
  }
  for (BudgetRow& budget : budgets) {
    const BudgetUse& use = budget.period == "daily"     ? day
                           : budget.period == "monthly" ? month
                           : budget.period == "per_run" ? run
                                                        : total;
    budget.used = use.of(budget.type);
  }
  return budgets;
}

StoreResult<std::optional<BudgetRow>> put_agent_budget(ControlStore& store, std::string_view org_id,
                                                       std::string_view name, std::string_view type,
                                                       std::string_view period, double limit,
                                                       std::string_view unit) {
  using Put = std::optional<BudgetRow>;
  auto known = has_agent(store, org_id, name);
  if (!known) return known.error();
  if (!*known) return Put();
  auto made = store.run(
      "INSERT INTO budgets (id, kind, org_id, agent_name, budget_type, period, limit_value, unit, "
      "created_at_us, updated_at_us) VALUES (?1, 'ak', ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8) "
      "ON CONFLICT (org_id, agent_name, budget_type, period) WHERE kind = 'ak' DO UPDATE SET limit_value = "
      "excluded.limit_value, source = excluded.source, updated_at_us = excluded.updated_at_us",
      UuidText(store.new_id()), org_id, name, type, period, limit, unit, store.now());
  if (!made) return made.error();
  auto budgets = agent_budgets(store, org_id, name);
  if (!budgets) return budgets.error();
  for (BudgetRow& budget : *budgets) {
    if (budget.type == type && budget.period == period) return Put(std::move(budget));
  }
  return StoreFailure{"a budget that was stored is not there", false};
}

namespace {

// REQUIRES: in a transaction.
StoreResult<std::optional<Kill>> kill(ControlStore& store, std::string_view org_id, std::string_view name) {
  using Killed = std::optional<Kill>;
  const WallMicros now = store.now();
  auto killed = store.run(
      "UPDATE agents SET killed_at_us = ?3, kill_reason = 'dashboard' WHERE org_id = ?1 AND name = ?2 AND "
      "killed_at_us IS NULL",
      org_id, name, now);
  if (!killed) return killed.error();
  if (*killed > 0) {
    AlertEvent event;
    event.agent_name = name;
    event.channel = "kill";
    event.threshold = 1.0;
    event.level = "CRITICAL";
    event.message = "Stopped from the dashboard";
    event.delivered = true;
    auto noted = add_alert_event(store, org_id, event);
    if (!noted) return noted.error();
    return Killed({.killed_at = now, .alert_id = std::move(*noted), .is_new = true});
  }
  Killed found;
  auto read = store.each(
      "SELECT killed_at_us FROM agents WHERE org_id = ?1 AND name = ?2 AND killed_at_us IS NOT NULL",
      [&found](const Statement::Rows& row) { found = Kill{.killed_at = row.integer(0), .alert_id = {}}; },
      org_id, name);
  if (!read) return read.error();
  if (!found) return found;
  read = store.each(
      "SELECT id FROM alert_events WHERE org_id = ?1 AND agent_name = ?2 AND created_at_us >= ?3 AND channel "
      "= "
      "'kill' AND config_id IS NULL ORDER BY created_at_us LIMIT 1",
      [&found](const Statement::Rows& row) { found->alert_id = row.text(0); }, org_id, name,
      found->killed_at);
  if (!read) return read.error();
  return found;
}

}  // namespace

StoreResult<std::optional<Kill>> kill_agent(ControlStore& store, std::string_view org_id,
                                            std::string_view name) {
  return store.in_transaction([&] { return kill(store, org_id, name); });
}

StoreResult<std::vector<std::string>> kill_active_agents(ControlStore& store, std::string_view org_id) {
  return store.in_transaction([&]() -> StoreResult<std::vector<std::string>> {
    std::vector<std::string> names;
    auto read = store.each(
        "SELECT name FROM agents WHERE org_id = ?1 AND last_received_us >= ?2 AND killed_at_us IS NULL ORDER "
        "BY name",
        [&names](const Statement::Rows& row) { names.emplace_back(row.text(0)); }, org_id,
        store.now() - kMicrosPerDay);
    if (!read) return read.error();
    for (const std::string& name : names) {
      if (auto killed = kill(store, org_id, name); !killed) return killed.error();
    }
    return names;
  });
}

StoreResult<bool> reactivate_agent(ControlStore& store, std::string_view org_id, std::string_view name) {
  auto set =
      store.run("UPDATE agents SET killed_at_us = NULL, kill_reason = NULL WHERE org_id = ?1 AND name = ?2",
                org_id, name);
  if (!set) return set.error();
  return *set > 0;
}

}  // namespace kavach::sink
