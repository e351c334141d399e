#include "sink/store/control/config_sync.h"

#include <algorithm>
#include <utility>

namespace kavach::sink {
namespace {

constexpr std::string_view kSdk = "sdk";

bool same_key(const SyncedBudget& a, const SyncedBudget& b) noexcept {
  return a.type == b.type && a.period == b.period;
}

bool same_key(const AlertConfig& a, const AlertConfig& b) noexcept {
  return a.channel == b.channel && a.threshold == b.threshold && a.budget_type == b.budget_type &&
         a.target_hash == b.target_hash;
}

// Of rows with the same key the last one.
template <typename Row>
void fold(std::vector<Row>& rows) {
  std::vector<Row> folded;
  for (Row& row : rows) {
    const auto found =
        std::find_if(folded.begin(), folded.end(), [&](const Row& other) { return same_key(other, row); });
    if (found == folded.end()) {
      folded.push_back(std::move(row));
    } else {
      *found = std::move(row);
    }
  }
  rows = std::move(folded);
}

struct StoredBudget : SyncedBudget {
  std::string id;
  std::string source;
};

StoreResult<std::vector<StoredBudget>> budgets_of(ControlStore& store, std::string_view org_id,
                                                  std::string_view agent_name) {
  std::vector<StoredBudget> budgets;
  auto read = store.each(
      "SELECT id, budget_type, period, unit, limit_value, source FROM budgets "
      "WHERE org_id = ?1 AND agent_name = ?2 AND kind = 'ak'",
      [&](const Statement::Rows& row) {
        StoredBudget& budget = budgets.emplace_back();
        budget.id = row.text(0);
        budget.type = row.text(1);
        budget.period = row.text(2);
        budget.unit = row.text(3);
        budget.limit = row.number(4);
        budget.source = row.text(5);
      },
      org_id, agent_name);
  if (!read) return read.error();
  return budgets;
}

StoreResult<void> write_budget(ControlStore& store, std::string_view org_id, std::string_view agent_name,
                               const SyncedBudget& budget) {
  auto written = store.run(
      "INSERT INTO budgets (id, kind, org_id, agent_name, budget_type, period, limit_value, unit, source, "
      "created_at_us, updated_at_us) VALUES (?1, 'ak', ?2, ?3, ?4, ?5, ?6, ?7, 'sdk', ?8, ?8) "
      "ON CONFLICT (org_id, agent_name, budget_type, period) WHERE kind = 'ak' "
      "DO UPDATE SET limit_value = excluded.limit_value, unit = excluded.unit, source = 'sdk', "
      "updated_at_us = excluded.updated_at_us",
      UuidText(store.new_id()), org_id, agent_name, std::string_view(budget.type),
      std::string_view(budget.period), budget.limit, std::string_view(budget.unit), store.now());
  if (!written) return written.error();
  return {};
}

// Writes what is not yet there; whether anything was written. `replaces`: the SDK's other rows go.
StoreResult<bool> sync_budgets(ControlStore& store, std::string_view org_id, std::string_view agent_name,
                               const std::vector<SyncedBudget>& budgets, bool replaces) {
  auto stored = budgets_of(store, org_id, agent_name);
  if (!stored) return stored.error();
  bool changed = false;
  for (const StoredBudget& old : *stored) {
    const bool stays = !replaces || old.source != kSdk ||
                       std::any_of(budgets.begin(), budgets.end(),
                                   [&](const auto& budget) { return same_key(budget, old); });
    if (stays) continue;
    auto dropped =
        store.run("DELETE FROM budgets WHERE org_id = ?1 AND id = ?2", org_id, std::string_view(old.id));
    if (!dropped) return dropped.error();
    changed = true;
  }
  for (const SyncedBudget& budget : budgets) {
    const bool is_there = std::any_of(stored->begin(), stored->end(), [&](const StoredBudget& old) {
      return same_key(old, budget) && old.limit == budget.limit && old.unit == budget.unit &&
             old.source == kSdk;
    });
    if (is_there) continue;
    if (auto written = write_budget(store, org_id, agent_name, budget); !written) return written.error();
    changed = true;
  }
  return changed;
}

StoreResult<void> write_alert(ControlStore& store, std::string_view org_id, std::string_view agent_name,
                              const AlertConfig& alert) {
  auto written = store.run(
      "INSERT INTO alert_configs (id, kind, org_id, agent_name, channels, threshold, budget_type, "
      "target_enc, target_hash, secret_enc, source, created_at_us) "
      "VALUES (?1, 'ak', ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'sdk', ?10) "
      "ON CONFLICT (org_id, agent_name, channels, threshold, budget_type, target_hash) WHERE kind = 'ak' "
      "DO UPDATE SET source = 'sdk', target_enc = excluded.target_enc, secret_enc = excluded.secret_enc",
      UuidText(store.new_id()), org_id, agent_name, std::string_view(alert.channel), alert.threshold,
      std::string_view(alert.budget_type), NullableText{alert.target_sealed},
      std::string_view(alert.target_hash), NullableText{alert.secret_sealed}, store.now());
  if (!written) return written.error();
  return {};
}

StoreResult<void> sync_alerts(ControlStore& store, std::string_view org_id, std::string_view agent_name,
                              const std::vector<AlertConfig>& alerts, const SameText& same_text) {
  auto stored = agent_alert_configs(store, org_id, agent_name);
  if (!stored) return stored.error();
  for (const AlertConfig& old : *stored) {
    const bool stays =
        old.source != kSdk ||
        std::any_of(alerts.begin(), alerts.end(), [&](const auto& alert) { return same_key(alert, old); });
    if (stays) continue;
    // What it has fired goes with it.
    for (const std::string_view sql :
         {"DELETE FROM alert_fired WHERE config_id = (SELECT id FROM alert_configs WHERE org_id = ?1 AND id "
          "= ?2)",
          "DELETE FROM alert_configs WHERE org_id = ?1 AND id = ?2"}) {
      auto dropped = store.run(sql, org_id, std::string_view(old.id));
      if (!dropped) return dropped.error();
    }
  }
  const auto same = [&](const std::string& old, const std::string& given) {
    return old.empty() || given.empty() ? old.empty() == given.empty() : same_text(old, given);
  };
  for (const AlertConfig& alert : alerts) {
    const bool is_there = std::any_of(stored->begin(), stored->end(), [&](const AlertConfig& old) {
      return same_key(old, alert) && old.source == kSdk && same(old.target_sealed, alert.target_sealed) &&
             same(old.secret_sealed, alert.secret_sealed);
    });
    if (is_there) continue;
    if (auto written = write_alert(store, org_id, agent_name, alert); !written) return written.error();
  }
  return {};
}

// Until the end of the transaction: two that write the same rows in another order would wait for each other.
// SQLite has one writer anyway.
StoreResult<void> lock_syncs(ControlStore& store, std::string_view org_id) {
  if (store.connection().dialect() == Dialect::kSqlite) return {};
  return store.each(
      "SELECT pg_advisory_xact_lock(hashtextextended('sync-config ' || ?1, 0))",
      [](const Statement::Rows&) {}, org_id);
}

}  // namespace

StoreResult<ConfigSynced> sync_config(ControlStore& store, std::string_view org_id, ConfigSync sync,
                                      const SameText& same_text) {
  fold(sync.budgets);
  fold(sync.alerts);
  if (sync.org_alerts) fold(*sync.org_alerts);
  return store.in_transaction([&]() -> StoreResult<ConfigSynced> {
    if (auto locked = lock_syncs(store, org_id); !locked) return locked.error();
    const std::string_view agent = sync.agent_name;
    auto made = store.run(
        "INSERT INTO agents (org_id, name, first_seen_us) VALUES (?1, ?2, ?3) "
        "ON CONFLICT (org_id, name) DO NOTHING",
        org_id, agent, store.now());
    if (!made) return made.error();
    auto budgets = sync_budgets(store, org_id, agent, sync.budgets, true);
    if (!budgets) return budgets.error();
    if (auto alerts = sync_alerts(store, org_id, agent, sync.alerts, same_text); !alerts)
      return alerts.error();
    ConfigSynced synced{.budgets = sync.budgets.size(), .alerts = sync.alerts.size()};
    if (sync.org_alerts) {
      synced.org_alerts = sync.org_alerts->size();
      if (auto alerts = sync_alerts(store, org_id, "", *sync.org_alerts, same_text); !alerts)
        return alerts.error();
    }
    // Last: it changes the directory's version, which others wait for.
    if (sync.org_budget) {
      auto changed = sync_budgets(store, org_id, "", {*sync.org_budget}, false);
      if (!changed) return changed.error();
      synced.org_budget_changed = *changed;
    }
    return synced;
  });
}

}  // namespace kavach::sink
