#include "sink/store/control/alert_configs.h"

namespace kavach::sink {
namespace {

constexpr std::string_view kColumns =
    "SELECT id, agent_name, channels, threshold, budget_type, target_enc, target_hash, secret_enc, "
    "is_active, "
    "source, created_at_us FROM alert_configs ";

AlertConfig row_of(const Statement::Rows& row) {
  return {.id = std::string(row.text(0)),
          .agent_name = std::string(row.text(1)),
          .channel = std::string(row.text(2)),
          .threshold = row.number(3),
          .budget_type = std::string(row.text(4)),
          .target_sealed = std::string(row.text(5)),
          .target_hash = std::string(row.text(6)),
          .secret_sealed = std::string(row.text(7)),
          .is_active = row.integer(8) != 0,
          .source = std::string(row.text(9)),
          .created_at = row.integer(10)};
}

}  // namespace

StoreResult<std::vector<AlertConfig>> alert_configs(ControlStore& store, std::string_view org_id) {
  static const std::string sql =
      std::string(kColumns) +
      "WHERE org_id = ?1 AND kind = 'ak' ORDER BY agent_name, channels, threshold, budget_type, id";
  std::vector<AlertConfig> configs;
  auto read = store.each(
      sql, [&](const Statement::Rows& row) { configs.push_back(row_of(row)); }, org_id);
  if (!read) return read.error();
  return configs;
}

StoreResult<std::vector<AlertConfig>> agent_alert_configs(ControlStore& store, std::string_view org_id,
                                                          std::string_view agent_name) {
  static const std::string sql =
      std::string(kColumns) +
      "WHERE org_id = ?1 AND agent_name = ?2 AND kind = 'ak' ORDER BY channels, threshold, budget_type, id";
  std::vector<AlertConfig> configs;
  auto read = store.each(
      sql, [&](const Statement::Rows& row) { configs.push_back(row_of(row)); }, org_id, agent_name);
  if (!read) return read.error();
  return configs;
}

StoreResult<AlertConfig> put_alert_config(ControlStore& store, std::string_view org_id, AlertConfig config,
                                          bool keep_secret) {
  return store.in_transaction([&]() -> StoreResult<AlertConfig> {
    auto put = store.run(
        "INSERT INTO alert_configs (id, kind, org_id, agent_name, channels, threshold, budget_type, "
        "target_enc, target_hash, secret_enc, source, created_at_us) "
        "VALUES (?1, 'ak', ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'dashboard', ?10) "
        "ON CONFLICT (org_id, agent_name, channels, threshold, budget_type, target_hash) WHERE kind = 'ak' "
        "DO UPDATE SET source = 'dashboard', is_active = 1, target_enc = excluded.target_enc, "
        "secret_enc = CASE WHEN ?11 = 1 THEN alert_configs.secret_enc ELSE excluded.secret_enc END",
        UuidText(store.new_id()), org_id, std::string_view(config.agent_name),
        std::string_view(config.channel), config.threshold, std::string_view(config.budget_type),
        NullableText{config.target_sealed}, std::string_view(config.target_hash),
        NullableText{config.secret_sealed}, store.now(), keep_secret ? 1 : 0);
    if (!put) return put.error();
    static const std::string sql =
        std::string(kColumns) +
        "WHERE org_id = ?1 AND agent_name = ?2 AND channels = ?3 AND threshold = ?4 AND budget_type = ?5 AND "
        "target_hash = ?6 AND kind = 'ak'";
    std::optional<AlertConfig> found;
    auto read = store.each(
        sql, [&](const Statement::Rows& row) { found = row_of(row); }, org_id,
        std::string_view(config.agent_name), std::string_view(config.channel), config.threshold,
        std::string_view(config.budget_type), std::string_view(config.target_hash));
    if (!read) return read.error();
    if (!found) return StoreFailure{"an alert configuration that was stored is not there", false};
    return std::move(*found);
  });
}

}  // namespace kavach::sink
