#include "sink/store/control/organization.h"

#include <algorithm>
#include <functional>
#include <map>
#include <utility>

#include "engine/calendar.h"
#include "engine/money.h"
#include "sink/store/sum_in_parts.h"

namespace kavach::sink {
namespace {

struct Used {
  std::int64_t events = 0, cost = 0, input_tokens = 0, output_tokens = 0, duration_ms = 0;
};

// In the periods of now, by their names; a period without events is not there.
StoreResult<std::map<std::string, Used, std::less<>>> used_by_period(ControlStore& store,
                                                                     std::string_view org_id) {
  static const std::string sql =
      "SELECT period, " + sum_in_parts("events") + ", " + sum_in_parts("cost_nano") + ", " +
      sum_in_parts("input_tokens") + ", " + sum_in_parts("output_tokens") + ", " +
      sum_in_parts("duration_ms") +
      " FROM node_usage WHERE org_id = ?1 AND (period = 'daily' AND number = ?2 OR period = 'monthly' AND "
      "number = ?3 OR period = 'total' AND number = 0) GROUP BY period";
  std::map<std::string, Used, std::less<>> used;
  auto read = store.each(
      sql,
      [&used](const Statement::Rows& row) {
        const auto sum = [&row](int column) {
          return from_parts(row.integer(column), row.integer(column + 1));
        };
        used[std::string(row.text(0))] = {sum(1), sum(3), sum(5), sum(7), sum(9)};
      },
      org_id, day_of(store.now()), month_of(store.now()));
  if (!read) return read.error();
  return used;
}

double used_of(const Used& used, std::string_view type) noexcept {
  if (type == "cost") return static_cast<double>(used.cost) / static_cast<double>(kNanoPerDollar);
  const std::int64_t count = type == "tokens_total"    ? saturating_add(used.input_tokens, used.output_tokens)
                             : type == "tokens_input"  ? used.input_tokens
                             : type == "tokens_output" ? used.output_tokens
                             : type == "calls"         ? used.events
                                                       : used.duration_ms;
  return static_cast<double>(count);
}

}  // namespace

StoreResult<OrgSettings> org_settings(ControlStore& store, std::string_view org_id) {
  OrgSettings found;
  auto read = store.each(
      "SELECT id, name, timezone, tier FROM organizations WHERE id = ?1",
      [&](const Statement::Rows& row) {
        found = {std::string(row.text(0)), std::string(row.text(1)), std::string(row.text(2)),
                 std::string(row.text(3))};
      },
      org_id);
  if (!read) return read.error();
  return found;
}

StoreResult<void> set_org_settings(ControlStore& store, std::string_view org_id,
                                   std::optional<std::string_view> org_name,
                                   std::optional<std::string_view> timezone) {
  return store.in_transaction([&]() -> StoreResult<void> {
    if (org_name) {
      auto set = store.run("UPDATE organizations SET name = ?2, updated_at_us = ?3 WHERE id = ?1", org_id,
                           *org_name, store.now());
      if (!set) return set.error();
    }
    if (timezone) {
      auto set = store.run("UPDATE organizations SET timezone = ?2, updated_at_us = ?3 WHERE id = ?1", org_id,
                           *timezone, store.now());
      if (!set) return set.error();
    }
    return {};
  });
}

StoreResult<std::vector<OrgBudget>> org_budgets(ControlStore& store, std::string_view org_id) {
  std::vector<OrgBudget> budgets;
  auto read = store.each(
      "SELECT id, budget_type, period, unit, source, limit_value, created_at_us, updated_at_us FROM budgets "
      "WHERE org_id = ?1 AND kind = 'ak' AND agent_name = '' ORDER BY budget_type, period",
      [&](const Statement::Rows& row) {
        budgets.push_back({.id = std::string(row.text(0)),
                           .type = std::string(row.text(1)),
                           .period = std::string(row.text(2)),
                           .unit = std::string(row.text(3)),
                           .source = std::string(row.text(4)),
                           .limit = row.number(5),
                           .created_at = row.integer(6),
                           .updated_at = row.integer(7)});
      },
      org_id);
  if (!read) return read.error();
  auto used = used_by_period(store, org_id);
  if (!used) return used.error();
  for (OrgBudget& budget : budgets) budget.used = used_of((*used)[budget.period], budget.type);
  return budgets;
}

StoreResult<PutBudget> put_org_budget(ControlStore& store, std::string_view org_id, std::string_view type,
                                      std::string_view period, double limit, std::string_view unit) {
  return store.in_transaction([&]() -> StoreResult<PutBudget> {
    PutBudget put;
    const WallMicros now = store.now();
    auto changed = store.run(
        "UPDATE budgets SET limit_value = ?4, source = 'dashboard', updated_at_us = ?5 WHERE org_id = ?1 AND "
        "kind = 'ak' AND agent_name = '' AND budget_type = ?2 AND period = ?3",
        org_id, type, period, limit, now);
    if (!changed) return changed.error();
    if (*changed == 0) {
      // Of two at the same time one changes what the other has made.
      auto made = store.run(
          "INSERT INTO budgets (id, kind, org_id, budget_type, period, limit_value, unit, created_at_us, "
          "updated_at_us) VALUES (?1, 'ak', ?2, ?3, ?4, ?5, ?6, ?7, ?7) "
          "ON CONFLICT (org_id, agent_name, budget_type, period) WHERE kind = 'ak' "
          "DO UPDATE SET limit_value = excluded.limit_value, updated_at_us = excluded.updated_at_us",
          UuidText(store.new_id()), org_id, type, period, limit, unit, now);
      if (!made) return made.error();
      put.created = true;
    }
    auto budgets = org_budgets(store, org_id);
    if (!budgets) return budgets.error();
    const auto found = std::find_if(budgets->begin(), budgets->end(), [&](const OrgBudget& budget) {
      return budget.type == type && budget.period == period;
    });
    if (found == budgets->end()) return StoreFailure{"a budget that was stored is not there", false};
    put.budget = std::move(*found);
    return put;
  });
}

StoreResult<bool> drop_org_budget(ControlStore& store, std::string_view org_id, std::string_view id) {
  auto dropped = store.run(
      "DELETE FROM budgets WHERE org_id = ?1 AND id = ?2 AND kind = 'ak' AND agent_name = ''", org_id, id);
  if (!dropped) return dropped.error();
  return *dropped > 0;
}

}  // namespace kavach::sink
