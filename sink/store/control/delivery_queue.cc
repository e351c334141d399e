#include "sink/store/control/delivery_queue.h"

#include <algorithm>

#include "engine/calendar.h"

namespace kavach::sink {

StoreResult<void> add_delivery(ControlStore& store, const Delivery& delivery) {
  auto added = store.run(
      "INSERT INTO deliveries (id, org_id, channel, ref_id, url, secret_enc, body, next_at_us, "
      "created_at_us) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
      UuidText(store.new_id()), std::string_view(delivery.org_id), std::string_view(delivery.channel),
      NullableText{delivery.alert_id}, std::string_view(delivery.target_sealed),
      NullableText{delivery.secret_sealed}, std::string_view(delivery.body), store.now());
  if (!added) return added.error();
  return {};
}

StoreResult<std::vector<Delivery>> claim_deliveries(ControlStore& store, std::int64_t count,
                                                    std::int64_t lease_us) {
  std::vector<Delivery> claimed;
  const WallMicros now = store.now();
  // Most of the time there is none: reading waits for no writer.
  auto due = store.scalar(
      "SELECT CASE WHEN EXISTS (SELECT 1 FROM deliveries WHERE status = 'pending' AND next_at_us <= ?1) THEN "
      "1 ELSE 0 END",
      now);
  if (!due) return due.error();
  if (*due == 0) return claimed;
#define KAVACH_CLAIM(skip_locked)                                                                         \
  "UPDATE deliveries SET next_at_us = ?3, attempts = attempts + 1 WHERE id IN (SELECT id FROM "           \
  "deliveries WHERE status = 'pending' AND next_at_us <= ?1 ORDER BY next_at_us LIMIT ?2" skip_locked     \
  ") RETURNING id, org_id, channel, ref_id, url, secret_enc, body, attempts, created_at_us, CASE WHEN "   \
  "EXISTS ("                                                                                              \
  "SELECT 1 FROM organizations o WHERE o.id = deliveries.org_id AND o.deleted_at_us IS NOT NULL) THEN 1 " \
  "ELSE 0 END"
  auto read = store.each(
      store.connection().dialect() == Dialect::kSqlite ? KAVACH_CLAIM("")
                                                       : KAVACH_CLAIM(" FOR UPDATE SKIP LOCKED"),
      [&claimed](const Statement::Rows& row) {
        claimed.push_back({.id = std::string(row.text(0)),
                           .org_id = std::string(row.text(1)),
                           .channel = std::string(row.text(2)),
                           .alert_id = std::string(row.text(3)),
                           .target_sealed = std::string(row.text(4)),
                           .secret_sealed = std::string(row.text(5)),
                           .body = std::string(row.text(6)),
                           .attempts = row.integer(7),
                           .created_at = row.integer(8),
                           .org_is_deleted = row.integer(9) != 0});
      },
      now, count, now + lease_us);
#undef KAVACH_CLAIM
  if (!read) return read.error();
  // An UPDATE returns its rows in any order.
  std::ranges::stable_sort(claimed, {}, &Delivery::created_at);
  return claimed;
}

StoreResult<void> settle_delivery(ControlStore& store, const Delivery& delivery,
                                  const DeliveryOutcome& outcome) {
  using Kind = DeliveryOutcome::Kind;
  if (outcome.kind == Kind::kGiveBack) {
    auto given = store.run(
        "UPDATE deliveries SET next_at_us = ?2, attempts = attempts - 1 WHERE id = ?1 AND status = 'pending'",
        std::string_view(delivery.id), outcome.next_at);
    if (!given) return given.error();
    return {};
  }
  return store.in_transaction([&]() -> StoreResult<void> {
    const bool is_delivered = outcome.kind == Kind::kDelivered;
    const std::string_view status = is_delivered                    ? "delivered"
                                    : outcome.kind == Kind::kFailed ? "failed"
                                                                    : "pending";
    // Somebody else may have delivered it after this sender's lease had ended: that stays.
    auto settled = store.run(
        "UPDATE deliveries SET status = ?2, next_at_us = ?3, last_status = ?4, last_error = ?5 WHERE id = ?1 "
        "AND status = 'pending'",
        std::string_view(delivery.id), status, outcome.next_at, outcome.status, NullableText{outcome.error});
    if (!settled) return settled.error();
    if (*settled == 0 || delivery.alert_id.empty()) return {};
    auto told =
        store.run("UPDATE alert_events SET delivered = ?2, error = ?3 WHERE id = ?1",
                  std::string_view(delivery.alert_id), is_delivered ? 1 : 0, NullableText{outcome.error});
    if (!told) return told.error();
    return {};
  });
}

StoreResult<std::int64_t> pending_deliveries(ControlStore& store) {
  return store.scalar("SELECT COUNT(*) FROM deliveries WHERE status = 'pending'");
}

StoreResult<std::int64_t> prune_alerts(ControlStore& store, WallMicros before, std::int64_t rows_max) {
  // A month's rule may have fired on its first day, and is asked for until its last.
  constexpr std::int64_t kPeriodUs = 62 * kMicrosPerDay;
  const StoreResult<std::int64_t> pruned[] = {
      store.run(
          "DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE created_at_us < ?1 ORDER "
          "BY created_at_us LIMIT ?2)",
          before, rows_max),
      store.run("DELETE FROM alert_events WHERE id IN (SELECT id FROM alert_events WHERE created_at_us < ?1 "
                "ORDER BY created_at_us LIMIT ?2)",
                before, rows_max),
      store.run("DELETE FROM alert_fired WHERE (config_id, scope_key, period_key) IN (SELECT config_id, "
                "scope_key, period_key FROM alert_fired WHERE fired_at_us < ?1 AND period_key <> 'total' "
                "ORDER BY fired_at_us LIMIT ?2)",
                store.now() - kPeriodUs, rows_max)};
  std::int64_t sum = 0;
  for (const auto& rows : pruned) {
    if (!rows) return rows.error();
    sum += *rows;
  }
  return sum;
}

}  // namespace kavach::sink
