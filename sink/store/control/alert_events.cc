#include "sink/store/control/alert_events.h"

namespace kavach::sink {
namespace {

constexpr std::string_view kColumns =
    "SELECT id, agent_name, config_id, channel, threshold, budget_type, level, current_value, limit_value, "
    "period, period_key, message, delivered, error, created_at_us FROM alert_events ";

AlertEvent row_of(const Statement::Rows& row) {
  return {.id = std::string(row.text(0)),
          .agent_name = std::string(row.text(1)),
          .config_id = std::string(row.text(2)),
          .channel = std::string(row.text(3)),
          .threshold = row.optional_number(4),
          .budget_type = std::string(row.text(5)),
          .level = std::string(row.text(6)),
          .current = row.optional_number(7),
          .limit = row.optional_number(8),
          .period = std::string(row.text(9)),
          .period_key = std::string(row.text(10)),
          .message = std::string(row.text(11)),
          .delivered = row.integer(12) != 0,
          .error = std::string(row.text(13)),
          .created_at = row.integer(14)};
}

}  // namespace

StoreResult<std::string> add_alert_event(ControlStore& store, std::string_view org_id,
                                         const AlertEvent& event) {
  std::string id = store.new_id().text();
  auto added = store.run(
      "INSERT INTO alert_events (id, org_id, agent_name, config_id, channel, threshold, budget_type, level, "
      "current_value, limit_value, period, period_key, message, delivered, error, created_at_us) "
      "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
      std::string_view(id), org_id, NullableText{event.agent_name}, NullableText{event.config_id},
      std::string_view(event.channel), event.threshold, NullableText{event.budget_type},
      NullableText{event.level}, event.current, event.limit, NullableText{event.period},
      NullableText{event.period_key}, NullableText{event.message}, event.delivered ? 1 : 0,
      NullableText{event.error}, store.now());
  if (!added) return added.error();
  return id;
}

StoreResult<AlertEvents> alert_events(ControlStore& store, std::string_view org_id, WallMicros from,
                                      std::int64_t limit) {
  AlertEvents events;
  auto total = store.scalar("SELECT COUNT(*) FROM alert_events WHERE org_id = ?1 AND created_at_us >= ?2",
                            org_id, from);
  if (!total) return total.error();
  events.total = *total;
  static const std::string sql =
      std::string(kColumns) +
      "WHERE org_id = ?1 AND created_at_us >= ?2 ORDER BY created_at_us DESC, id DESC LIMIT ?3";
  auto read = store.each(
      sql, [&](const Statement::Rows& row) { events.newest.push_back(row_of(row)); }, org_id, from, limit);
  if (!read) return read.error();
  return events;
}

StoreResult<AlertEvents> agent_alert_events(ControlStore& store, std::string_view org_id,
                                            std::string_view agent_name, std::int64_t limit) {
  AlertEvents events;
  auto total = store.scalar("SELECT COUNT(*) FROM alert_events WHERE org_id = ?1 AND agent_name = ?2", org_id,
                            agent_name);
  if (!total) return total.error();
  events.total = *total;
  static const std::string sql =
      std::string(kColumns) +
      "WHERE org_id = ?1 AND agent_name = ?2 ORDER BY created_at_us DESC, id DESC LIMIT ?3";
  auto read = store.each(
      sql, [&](const Statement::Rows& row) { events.newest.push_back(row_of(row)); }, org_id, agent_name,
      limit);
  if (!read) return read.error();
  return events;
}

}  // namespace kavach::sink
