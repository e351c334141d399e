#include "sink/store/control/billing.h"

#include <utility>

#include "engine/calendar.h"

namespace kavach::sink {
namespace {

constexpr std::int64_t kPeriodDays = 30;

StoreResult<void> done(const StoreResult<std::int64_t>& ran) {
  if (!ran) return ran.error();
  return {};
}

StoreResult<void> ensure_row(ControlStore& store, std::string_view org_id) {
  return done(store.run(
      "INSERT INTO subscriptions (org_id, tier, status, updated_at_us) SELECT o.id, o.tier, 'active', ?2 "
      "FROM organizations o WHERE o.id = ?1 ON CONFLICT (org_id) DO NOTHING",
      org_id, store.now()));
}

StoreResult<void> write_tier(ControlStore& store, std::string_view org_id, std::string_view tier) {
  if (auto set = store.run("UPDATE organizations SET tier = ?2, updated_at_us = ?3 WHERE id = ?1", org_id,
                           tier, store.now());
      !set)
    return set.error();
  return done(store.run("UPDATE subscriptions SET tier = ?2, updated_at_us = ?3 WHERE org_id = ?1", org_id,
                        tier, store.now()));
}

StoreResult<std::string> text_of(ControlStore& store, std::string_view sql, std::string_view first,
                                 std::string_view second = {}) {
  std::string found;
  const auto take = [&found](const Statement::Rows& row) { found = std::string(row.text(0)); };
  auto read = second.empty() ? store.each(sql, take, first) : store.each(sql, take, first, second);
  if (!read) return read.error();
  return found;
}

}  // namespace

StoreResult<SubscriptionRow> subscription_of(ControlStore& store, std::string_view org_id) {
  SubscriptionRow found;
  auto read = store.each(
      "SELECT o.tier, COALESCE(s.status, 'active'), s.stripe_customer_id, s.stripe_subscription_id, "
      "s.period_start_us, s.period_end_us, s.trial_start_us, s.trial_end_us, s.paused_at_us, "
      "s.cancelled_at_us, COALESCE(s.auto_renew, 1), l.events_per_day, l.max_agents, l.burst_per_minute "
      "FROM organizations o LEFT JOIN subscriptions s ON s.org_id = o.id "
      "LEFT JOIN org_limits l ON l.org_id = o.id WHERE o.id = ?1",
      [&found](const Statement::Rows& row) {
        found = {.tier = std::string(row.text(0)),
                 .status = std::string(row.text(1)),
                 .customer_id = std::string(row.text(2)),
                 .subscription_id = std::string(row.text(3)),
                 .period_start = row.optional_integer(4),
                 .period_end = row.optional_integer(5),
                 .trial_start = row.optional_integer(6),
                 .trial_end = row.optional_integer(7),
                 .paused_at = row.optional_integer(8),
                 .cancelled_at = row.optional_integer(9),
                 .auto_renew = row.integer(10) != 0,
                 .limits = {row.optional_integer(11), row.optional_integer(12), row.optional_integer(13)}};
      },
      org_id);
  if (!read) return read.error();
  return found;
}

StoreResult<PlanUsage> plan_usage(ControlStore& store, std::string_view org_id) {
  auto events = store.scalar(
      "SELECT CAST(COALESCE(SUM(events), 0) AS BIGINT) FROM node_usage "
      "WHERE org_id = ?1 AND period = 'daily' AND number = ?2",
      org_id, day_of(store.now()));
  if (!events) return events.error();
  auto agents = store.scalar("SELECT COUNT(*) FROM agents WHERE org_id = ?1 AND last_received_us > ?2",
                             org_id, store.now() - kMicrosPerDay);
  if (!agents) return agents.error();
  return PlanUsage{*events, *agents};
}

// --- life cycle --------------------------------------------------------------------------------------------

bool may_move(Move move, std::string_view status) noexcept {
  switch (move) {
    case Move::kPause:
      return status != "paused" && status != "cancelled";
    case Move::kResume:
      return status == "paused";
    case Move::kCancel:
      return status != "cancelled";
    case Move::kReactivate:
      return status == "paused" || status == "cancelled";
  }
  return false;
}

StoreResult<bool> move_subscription(ControlStore& store, std::string_view org_id, Move move,
                                    std::string_view new_subscription_id) {
  return store.in_transaction([&]() -> StoreResult<bool> {
    if (auto made = ensure_row(store, org_id); !made) return made.error();
    const WallMicros now = store.now();
    const auto run = [&]() -> StoreResult<std::int64_t> {
      switch (move) {
        case Move::kPause:
          return store.run(
              "UPDATE subscriptions SET status = 'paused', paused_at_us = ?2, updated_at_us = ?2 "
              "WHERE org_id = ?1 AND status NOT IN ('paused', 'cancelled')",
              org_id, now);
        case Move::kResume:
          return store.run(
              "UPDATE subscriptions SET status = 'active', paused_at_us = NULL, updated_at_us = ?2 "
              "WHERE org_id = ?1 AND status = 'paused'",
              org_id, now);
        case Move::kCancel:
          return store.run(
              "UPDATE subscriptions SET status = 'cancelled', paused_at_us = NULL, cancelled_at_us = ?2, "
              "updated_at_us = ?2 WHERE org_id = ?1 AND status <> 'cancelled'",
              org_id, now);
        case Move::kReactivate:
          break;
      }
      return store.run(
          "UPDATE subscriptions SET status = 'active', paused_at_us = NULL, cancelled_at_us = NULL, "
          "stripe_subscription_id = COALESCE(?3, stripe_subscription_id), auto_renew = 1, updated_at_us = ?2 "
          "WHERE org_id = ?1 AND status IN ('paused', 'cancelled')",
          org_id, now, NullableText{new_subscription_id});
    };
    auto moved = run();
    if (!moved) return moved.error();
    return *moved == 1;
  });
}

StoreResult<void> set_auto_renew(ControlStore& store, std::string_view org_id, bool auto_renew) {
  return store.in_transaction([&]() -> StoreResult<void> {
    if (auto made = ensure_row(store, org_id); !made) return made.error();
    return done(store.run("UPDATE subscriptions SET auto_renew = ?2, updated_at_us = ?3 WHERE org_id = ?1",
                          org_id, std::int64_t{auto_renew}, store.now()));
  });
}

StoreResult<void> set_tier(ControlStore& store, std::string_view org_id, std::string_view tier) {
  return store.in_transaction([&]() -> StoreResult<void> {
    if (auto made = ensure_row(store, org_id); !made) return made.error();
    return write_tier(store, org_id, tier);
  });
}

// --- checkout and payments ---------------------------------------------------------------------------------

StoreResult<void> add_checkout(ControlStore& store, std::string_view session_id, std::string_view org_id,
                               std::string_view tier) {
  return done(
      store.run("INSERT INTO checkout_sessions (id, org_id, tier, status, created_at_us) VALUES (?1, ?2, ?3, "
                "'open', ?4)",
                session_id, org_id, tier, store.now()));
}

StoreResult<bool> confirm_checkout(ControlStore& store, std::string_view session_id, std::string_view org_id,
                                   const std::function<std::int64_t(std::string_view tier)>& price_cents) {
  return store.in_transaction([&]() -> StoreResult<bool> {
    auto tier = text_of(store, "SELECT tier FROM checkout_sessions WHERE id = ?1 AND org_id = ?2", session_id,
                        org_id);
    if (!tier) return tier.error();
    if (tier->empty()) return false;
    auto completed = store.run(
        "UPDATE checkout_sessions SET status = 'complete' WHERE id = ?1 AND org_id = ?2 AND status = 'open'",
        session_id, org_id);
    if (!completed) return completed.error();
    if (*completed == 0) return true;
    const WallMicros now = store.now();
    if (auto made = ensure_row(store, org_id); !made) return made.error();
    if (auto set = write_tier(store, org_id, *tier); !set) return set.error();
    auto ran = store.run(
        "UPDATE subscriptions SET status = 'active', period_start_us = ?2, period_end_us = ?3, auto_renew = "
        "1, "
        "paused_at_us = NULL, cancelled_at_us = NULL, updated_at_us = ?2 WHERE org_id = ?1",
        org_id, now, now + kPeriodDays * kMicrosPerDay);
    if (!ran) return ran.error();
    ran = store.run(
        "INSERT INTO payments (id, org_id, external_id, amount_cents, status, tier, description, "
        "created_at_us) "
        "VALUES (?1, ?2, ?3, ?4, 'succeeded', ?5, 'Development checkout', ?6)",
        UuidText(store.new_id()), org_id, session_id, price_cents(*tier), std::string_view(*tier), now);
    if (!ran) return ran.error();
    return true;
  });
}

StoreResult<Payments> payments_of(ControlStore& store, std::string_view org_id, std::int64_t limit) {
  Payments payments;
  auto read = store.each(
      "SELECT id, amount_cents, currency, status, tier, description, invoice_url, created_at_us FROM "
      "payments "
      "WHERE org_id = ?1 ORDER BY created_at_us DESC, id DESC LIMIT ?2",
      [&payments](const Statement::Rows& row) {
        payments.newest.push_back({.id = std::string(row.text(0)),
                                   .currency = std::string(row.text(2)),
                                   .status = std::string(row.text(3)),
                                   .tier = std::string(row.text(4)),
                                   .description = std::string(row.text(5)),
                                   .invoice_url = std::string(row.text(6)),
                                   .amount_cents = row.integer(1),
                                   .created_at = row.integer(7)});
      },
      org_id, limit);
  if (!read) return read.error();
  auto total = store.scalar("SELECT COUNT(*) FROM payments WHERE org_id = ?1", org_id);
  if (!total) return total.error();
  payments.total = *total;
  return payments;
}

// --- Stripe's events ---------------------------------------------------------------------------------------

namespace {

// Whose subscription it is: by Stripe's id, or by Kavach's metadata while the organization has no other one.
StoreResult<std::string> owner_of(ControlStore& store, const StripeEvent& event) {
  if (event.subscription_id.empty()) return std::string();
  auto owner = text_of(store, "SELECT org_id FROM subscriptions WHERE stripe_subscription_id = ?1",
                       event.subscription_id);
  if (!owner || !owner->empty() || event.org_id.empty()) return owner;
  owner =
      text_of(store, "SELECT id FROM organizations WHERE id = ?1 AND deleted_at_us IS NULL", event.org_id);
  if (!owner || owner->empty()) return owner;
  if (auto made = ensure_row(store, *owner); !made) return made.error();
  auto adopted = store.run(
      "UPDATE subscriptions SET stripe_subscription_id = ?2, stripe_customer_id = COALESCE(?3, "
      "stripe_customer_id) WHERE org_id = ?1 AND stripe_subscription_id IS NULL",
      std::string_view(*owner), std::string_view(event.subscription_id), NullableText{event.customer_id});
  if (!adopted) return adopted.error();
  return *adopted == 1 ? *owner : std::string();
}

StoreResult<bool> complete_checkout(ControlStore& store, const StripeEvent& event) {
  std::string org, tier;
  auto read = store.each(
      "SELECT c.org_id, c.tier FROM checkout_sessions c JOIN organizations o ON o.id = c.org_id "
      "WHERE c.id = ?1 AND c.status = 'open' AND o.deleted_at_us IS NULL",
      [&](const Statement::Rows& row) {
        org = std::string(row.text(0));
        tier = std::string(row.text(1));
      },
      std::string_view(event.session_id));
  if (!read) return read.error();
  if (org.empty()) return false;
  auto ran = store.run("UPDATE checkout_sessions SET status = 'complete' WHERE id = ?1",
                       std::string_view(event.session_id));
  if (!ran) return ran.error();
  if (auto made = ensure_row(store, org); !made) return made.error();
  // A newer event may already have ended the very subscription that this checkout began.
  ran = store.run(
      "UPDATE subscriptions SET status = CASE WHEN status = 'trialing' AND stripe_subscription_id = ?2 THEN "
      "'trialing' ELSE 'active' END, stripe_subscription_id = ?2, stripe_customer_id = COALESCE(?3, "
      "stripe_customer_id), auto_renew = 1, paused_at_us = NULL, cancelled_at_us = NULL, updated_at_us = ?4 "
      "WHERE org_id = ?1 AND NOT (status = 'cancelled' AND COALESCE(stripe_subscription_id, '') = ?2)",
      std::string_view(org), std::string_view(event.subscription_id), NullableText{event.customer_id},
      store.now());
  if (!ran) return ran.error();
  if (*ran == 0) return true;
  if (auto set = write_tier(store, org, tier); !set) return set.error();
  return true;
}

// A subscription that was cancelled never comes back under the same id, whatever arrives late.
StoreResult<bool> update_subscription(ControlStore& store, const std::string& org, const StripeEvent& event) {
  const std::string_view status =
      event.kind == StripeEvent::Kind::kSubscriptionDeleted ? "cancelled" : std::string_view(event.status);
  auto ran = store.run(
      "UPDATE subscriptions SET status = COALESCE(?2, status), stripe_event_us = ?3, "
      "period_start_us = COALESCE(?4, period_start_us), period_end_us = COALESCE(?5, period_end_us), "
      "trial_start_us = COALESCE(?6, trial_start_us), trial_end_us = COALESCE(?7, trial_end_us), "
      "auto_renew = ?8, updated_at_us = ?9 "
      "WHERE org_id = ?1 AND status <> 'cancelled' AND COALESCE(stripe_event_us, 0) <= ?3",
      std::string_view(org), NullableText{status}, event.created_at, event.period_start, event.period_end,
      event.trial_start, event.trial_end, std::int64_t{event.auto_renew}, store.now());
  if (!ran) return ran.error();
  if (*ran == 0) return false;
  ran = store.run(
      "UPDATE subscriptions SET paused_at_us = CASE WHEN status = 'paused' THEN COALESCE(paused_at_us, ?2) "
      "END, cancelled_at_us = CASE WHEN status = 'cancelled' THEN COALESCE(cancelled_at_us, ?2) END "
      "WHERE org_id = ?1",
      std::string_view(org), event.created_at);
  if (!ran) return ran.error();
  if (event.tier.empty()) return true;
  if (auto set = write_tier(store, org, event.tier); !set) return set.error();
  return true;
}

// A payment that succeeded stays so: what failed before may be told after.
StoreResult<bool> note_invoice(ControlStore& store, const std::string& org, const StripeEvent& event) {
  const bool paid = event.kind == StripeEvent::Kind::kInvoicePaid;
  auto noted = store.run(
      "INSERT INTO payments (id, org_id, external_id, amount_cents, currency, status, tier, description, "
      "invoice_url, created_at_us) SELECT ?1, o.id, ?3, ?4, ?5, ?6, o.tier, 'Subscription invoice', ?7, ?8 "
      "FROM organizations o WHERE o.id = ?2 ON CONFLICT (external_id) DO UPDATE SET status = "
      "excluded.status, "
      "amount_cents = excluded.amount_cents, invoice_url = excluded.invoice_url "
      "WHERE payments.status <> 'succeeded'",
      UuidText(store.new_id()), std::string_view(org), std::string_view(event.invoice_id), event.amount_cents,
      std::string_view(event.currency), std::string_view(paid ? "succeeded" : "failed"),
      NullableText{event.invoice_url}, event.created_at);
  if (!noted) return noted.error();
  if (*noted == 0) return false;
  auto moved = store.run(
      "UPDATE subscriptions SET status = ?2, stripe_event_us = ?3, updated_at_us = ?4 WHERE org_id = ?1 AND "
      "status = ?5 AND COALESCE(stripe_event_us, 0) <= ?3",
      std::string_view(org), std::string_view(paid ? "active" : "past_due"), event.created_at, store.now(),
      std::string_view(paid ? "past_due" : "active"));
  if (!moved) return moved.error();
  return true;
}

StoreResult<bool> apply(ControlStore& store, const StripeEvent& event) {
  if (event.kind == StripeEvent::Kind::kCheckoutCompleted) return complete_checkout(store, event);
  auto owner = owner_of(store, event);
  if (!owner) return owner.error();
  if (owner->empty()) return false;
  if (event.kind == StripeEvent::Kind::kInvoicePaid || event.kind == StripeEvent::Kind::kInvoiceFailed)
    return note_invoice(store, *owner, event);
  return update_subscription(store, *owner, event);
}

}  // namespace

StoreResult<EventAnswer> apply_stripe_event(ControlStore& store, const StripeEvent& event) {
  return store.in_transaction([&]() -> StoreResult<EventAnswer> {
    // Of the same event on several connections one gets past this.
    auto first = store.run(
        "INSERT INTO stripe_events (id, received_at_us) VALUES (?1, ?2) ON CONFLICT (id) DO NOTHING",
        std::string_view(event.id), store.now());
    if (!first) return first.error();
    if (*first == 0) return EventAnswer::kRepeated;
    auto applied = apply(store, event);
    if (!applied) return applied.error();
    return *applied ? EventAnswer::kApplied : EventAnswer::kIgnored;
  });
}

StoreResult<void> delete_organization(ControlStore& store, std::string_view org_id) {
  return store.in_transaction([&]() -> StoreResult<void> {
    const WallMicros now = store.now();
    for (const std::string_view sql :
         {"UPDATE organizations SET deleted_at_us = COALESCE(deleted_at_us, ?2), updated_at_us = ?2 WHERE id "
          "= ?1",
          "UPDATE api_keys SET is_active = 0, revoked_at_us = COALESCE(revoked_at_us, ?2) WHERE org_id = ?1",
          "UPDATE subscriptions SET status = 'cancelled', cancelled_at_us = COALESCE(cancelled_at_us, ?2), "
          "paused_at_us = NULL, updated_at_us = ?2 WHERE org_id = ?1"}) {
      if (auto ran = store.run(sql, org_id, now); !ran) return ran.error();
    }
    return {};
  });
}

}  // namespace kavach::sink
