#include "sink/store/control/organization.h"

#include <algorithm>
#include <functional>
#include <map>
#include <utility>

#include "engine/calendar.h"
#include "sink/store/sum_in_parts.h"

namespace kavach::sink {
namespace {

// Of the periods that run now.
struct Uses {
  BudgetUse daily = {}, monthly = {}, total = {};

  const BudgetUse& of(std::string_view period) const noexcept {
    return period == "daily" ? daily : period == "monthly" ? monthly : total;
  }
};

StoreResult<Uses> uses(ControlStore& store, std::string_view org_id) {
  static const std::string sql =
      "SELECT period, " + sum_in_parts("events") + ", " + sum_in_parts("cost_nano") + ", " +
      sum_in_parts("input_tokens") + ", " + sum_in_parts("output_tokens") + ", " +
      sum_in_parts("duration_ms") +
      " FROM node_usage WHERE org_id = ?1 AND ((period = 'daily' AND number = ?2) OR (period = 'monthly' AND "
      "number = ?3) OR (period = 'total' AND number = 0)) GROUP BY period";
  Uses uses;
  auto read = store.each(
      sql,
      [&uses](const Statement::Rows& row) {
        BudgetUse& use = row.text(0) == "daily"     ? uses.daily
                         : row.text(0) == "monthly" ? uses.monthly
                                                    : uses.total;
        use = {.events = sum_at(row, 1),
               .cost = sum_at(row, 3),
               .input_tokens = sum_at(row, 5),
               .output_tokens = sum_at(row, 7),
               .duration_ms = sum_at(row, 9)};
      },
      org_id, day_of(store.now()), month_of(store.now()));
  if (!read) return read.error();
  return uses;
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

StoreResult<std::vector<BudgetRow>> org_budgets(ControlStore& store, std::string_view org_id) {
  std::vector<BudgetRow> budgets;
  auto read = store.each(
      "SELECT id, budget_type, period, unit, source, limit_value, created_at_us, updated_at_us FROM budgets "
      "WHERE org_id = ?1 AND kind = 'ak' AND agent_name = '' ORDER BY budget_type, period",
      [&](const Statement::Rows& row) {
        budgets.push_back({.id = std::string(row.text(0)),
                           .agent_name = {},
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
  if (budgets.empty()) return budgets;
  const auto used = uses(store, org_id);
  if (!used) return used.error();
  for (BudgetRow& budget : budgets) budget.used = used->of(budget.period).of(budget.type);
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
    const auto found = std::find_if(budgets->begin(), budgets->end(), [&](const BudgetRow& budget) {
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
