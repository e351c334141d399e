#include "sink/store/control/config_sync.h"

#include <algorithm>
#include <utility>

#include "sink/store/control/agents.h"

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

// What of the stored rows is to change.
template <typename Row>
struct Difference {
  std::vector<std::string> dropped;  // by id
  std::vector<Row> written;

  bool is_empty() const noexcept { return dropped.empty() && written.empty(); }
};

// Of the stored rows, those of the SDK that it names no more; of the given ones, those that are not as
// `is_there` wants them.
template <typename Row, typename Stored, typename IsThere>
Difference<Row> difference(const std::vector<Stored>& stored, const std::vector<Row>& given, bool replaces,
                           IsThere is_there) {
  Difference<Row> found;
  for (const Stored& old : stored) {
    const bool stays =
        !replaces || old.source != kSdk ||
        std::any_of(given.begin(), given.end(), [&](const Row& row) { return same_key(row, old); });
    if (!stays) found.dropped.push_back(old.id);
  }
  for (const Row& row : given) {
    const bool is_stored = std::any_of(stored.begin(), stored.end(), [&](const Stored& old) {
      return same_key(old, row) && old.source == kSdk && is_there(old, row);
    });
    if (!is_stored) found.written.push_back(row);
  }
  return found;
}

// `replaces`: the SDK's other rows go.
StoreResult<Difference<SyncedBudget>> compare_budgets(ControlStore& store, std::string_view org_id,
                                                      std::string_view agent_name,
                                                      const std::vector<SyncedBudget>& budgets,
                                                      bool replaces) {
  const auto stored = budgets_of(store, org_id, agent_name);
  if (!stored) return stored.error();
  return difference(*stored, budgets, replaces, [](const StoredBudget& old, const SyncedBudget& budget) {
    return old.limit == budget.limit && old.unit == budget.unit;
  });
}

StoreResult<void> write_budgets(ControlStore& store, std::string_view org_id, std::string_view agent_name,
                                const Difference<SyncedBudget>& changes) {
  for (const std::string& id : changes.dropped) {
    auto dropped =
        store.run("DELETE FROM budgets WHERE org_id = ?1 AND id = ?2", org_id, std::string_view(id));
    if (!dropped) return dropped.error();
  }
  for (const SyncedBudget& budget : changes.written) {
    if (auto written = write_budget(store, org_id, agent_name, budget); !written) return written;
  }
  return {};
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

StoreResult<Difference<AlertConfig>> compare_alerts(ControlStore& store, std::string_view org_id,
                                                    std::string_view agent_name,
                                                    const std::vector<AlertConfig>& alerts,
                                                    const SameText& same_text) {
  const auto stored = agent_alert_configs(store, org_id, agent_name);
  if (!stored) return stored.error();
  const auto same = [&](const std::string& old, const std::string& given) {
    return old.empty() || given.empty() ? old.empty() == given.empty() : same_text(old, given);
  };
  return difference(*stored, alerts, true, [&](const AlertConfig& old, const AlertConfig& alert) {
    return same(old.target_sealed, alert.target_sealed) && same(old.secret_sealed, alert.secret_sealed);
  });
}

StoreResult<void> write_alerts(ControlStore& store, std::string_view org_id, std::string_view agent_name,
                               const Difference<AlertConfig>& changes) {
  for (const std::string& id : changes.dropped) {
    // What it has fired goes with it.
    for (const std::string_view sql :
         {"DELETE FROM alert_fired WHERE config_id = (SELECT id FROM alert_configs WHERE org_id = ?1 AND id "
          "= ?2)",
          "DELETE FROM alert_configs WHERE org_id = ?1 AND id = ?2"}) {
      if (auto dropped = store.run(sql, org_id, std::string_view(id)); !dropped) return dropped.error();
    }
  }
  for (const AlertConfig& alert : changes.written) {
    if (auto written = write_alert(store, org_id, agent_name, alert); !written) return written;
  }
  return {};
}

struct Changes {
  bool has_agent = false;
  Difference<SyncedBudget> budgets, org_budget;
  Difference<AlertConfig> alerts, org_alerts;

  bool is_empty() const noexcept {
    return has_agent && budgets.is_empty() && org_budget.is_empty() && alerts.is_empty() &&
           org_alerts.is_empty();
  }
};

StoreResult<Changes> compare(ControlStore& store, std::string_view org_id, const ConfigSync& sync,
                             const SameText& same_text) {
  Changes found;
  const std::string_view agent = sync.agent_name;
  auto known = has_agent(store, org_id, agent);
  if (!known) return known.error();
  found.has_agent = *known;
  auto budgets = compare_budgets(store, org_id, agent, sync.budgets, true);
  if (!budgets) return budgets.error();
  found.budgets = std::move(*budgets);
  auto alerts = compare_alerts(store, org_id, agent, sync.alerts, same_text);
  if (!alerts) return alerts.error();
  found.alerts = std::move(*alerts);
  if (sync.org_alerts) {
    auto org_alerts = compare_alerts(store, org_id, "", *sync.org_alerts, same_text);
    if (!org_alerts) return org_alerts.error();
    found.org_alerts = std::move(*org_alerts);
  }
  if (sync.org_budget) {
    auto org_budget = compare_budgets(store, org_id, "", {*sync.org_budget}, false);
    if (!org_budget) return org_budget.error();
    found.org_budget = std::move(*org_budget);
  }
  return found;
}

// An SDK syncs whenever its process starts, and nearly always says what is stored: that waits for no writer.
StoreResult<Changes> look(ControlStore& store, std::string_view org_id, const ConfigSync& sync,
                          const SameText& same_text) {
  auto view = Transaction::begin_read(store.connection());
  if (!view) return view.error();
  auto found = compare(store, org_id, sync, same_text);
  if (!found) return found;
  if (auto ended = view->commit(); !ended) return ended.error();
  return found;
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
  ConfigSynced synced{.budgets = sync.budgets.size(),
                      .alerts = sync.alerts.size(),
                      .org_alerts = sync.org_alerts ? sync.org_alerts->size() : 0};
  const auto seen = look(store, org_id, sync, same_text);
  if (!seen) return seen.error();
  if (seen->is_empty()) return synced;
  return store.in_transaction([&]() -> StoreResult<ConfigSynced> {
    if (auto locked = lock_syncs(store, org_id); !locked) return locked.error();
    const std::string_view agent = sync.agent_name;
    auto made = store.run(
        "INSERT INTO agents (org_id, name, first_seen_us) VALUES (?1, ?2, ?3) "
        "ON CONFLICT (org_id, name) DO NOTHING",
        org_id, agent, store.now());
    if (!made) return made.error();
    // Once more: somebody may have written meanwhile.
    const auto changes = compare(store, org_id, sync, same_text);
    if (!changes) return changes.error();
    if (auto written = write_budgets(store, org_id, agent, changes->budgets); !written)
      return written.error();
    if (auto written = write_alerts(store, org_id, agent, changes->alerts); !written) return written.error();
    if (auto written = write_alerts(store, org_id, "", changes->org_alerts); !written) return written.error();
    // Last: it changes the directory's version, which others wait for.
    if (auto written = write_budgets(store, org_id, "", changes->org_budget); !written)
      return written.error();
    synced.org_budget_changed = !changes->org_budget.is_empty();
    return synced;
  });
}

}  // namespace kavach::sink
