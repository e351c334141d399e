// Billing: subscriptions, checkout sessions and payments, and what Stripe's events do to them.
//
// An organization without a row in `subscriptions` is active on its own tier; its first change makes the row.
// Every change of a subscription's status is one conditional statement, so that of two at the same time only
// one takes place.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sink/store/control/control_store.h"

namespace kavach::sink {

struct SubscriptionRow {
  std::string tier;
  std::string status;                        // trialing, active, past_due, paused, cancelled
  std::string customer_id, subscription_id;  // Stripe's; empty: none
  std::optional<WallMicros> period_start = {}, period_end = {}, trial_start = {}, trial_end = {};
  std::optional<WallMicros> paused_at = {}, cancelled_at = {};
  bool auto_renew = true;
  OrgLimits limits = {};  // the organization's own
};
StoreResult<SubscriptionRow> subscription_of(ControlStore& store, std::string_view org_id);

struct PlanUsage {
  std::int64_t events_today = 0;   // of the UTC day
  std::int64_t active_agents = 0;  // with an event in the last 24 hours
};
StoreResult<PlanUsage> plan_usage(ControlStore& store, std::string_view org_id);

enum class Move : std::uint8_t { kPause, kResume, kCancel, kReactivate };
// Whether a subscription in `status` can make it.
bool may_move(Move move, std::string_view status) noexcept;
// False: it could not. `new_subscription_id`: Stripe's, where reactivating made another one; or empty.
StoreResult<bool> move_subscription(ControlStore& store, std::string_view org_id, Move move,
                                    std::string_view new_subscription_id = {});

StoreResult<void> set_auto_renew(ControlStore& store, std::string_view org_id, bool auto_renew);
StoreResult<void> set_tier(ControlStore& store, std::string_view org_id, std::string_view tier);

StoreResult<void> add_checkout(ControlStore& store, std::string_view session_id, std::string_view org_id,
                               std::string_view tier);
// Pays a session of the development path: tier, a month's period and a payment, once. False: there is no
// such session. `price_cents`: of each tier, by its name.
StoreResult<bool> confirm_checkout(ControlStore& store, std::string_view session_id, std::string_view org_id,
                                   const std::function<std::int64_t(std::string_view tier)>& price_cents);

struct Payment {
  std::string id, currency, status, tier, description, invoice_url;
  std::int64_t amount_cents = 0;
  WallMicros created_at = 0;
};
struct Payments {
  std::vector<Payment> newest;
  std::int64_t total = 0;
};
StoreResult<Payments> payments_of(ControlStore& store, std::string_view org_id, std::int64_t limit);

// One event of Stripe's, as far as it matters. Empty texts: it does not say.
struct StripeEvent {
  enum class Kind : std::uint8_t {
    kCheckoutCompleted,
    kSubscriptionUpdated,
    kSubscriptionDeleted,
    kInvoicePaid,
    kInvoiceFailed
  };
  std::string id;
  Kind kind = Kind::kCheckoutCompleted;
  WallMicros created_at = 0;
  std::string customer_id, subscription_id;
  std::string org_id;      // from metadata that Kavach gave Stripe
  std::string session_id;  // of a checkout
  // Of a subscription.
  std::string tier, status;
  std::optional<WallMicros> period_start = {}, period_end = {}, trial_start = {}, trial_end = {};
  bool auto_renew = true;
  // Of an invoice.
  std::string invoice_id, currency, invoice_url;
  std::int64_t amount_cents = 0;
};
enum class EventAnswer : std::uint8_t { kApplied, kRepeated, kIgnored };
// Notes its id and applies it, both or neither. kIgnored: it belongs to nobody here, or is older than what
// was applied already.
StoreResult<EventAnswer> apply_stripe_event(ControlStore& store, const StripeEvent& event);

// Its keys end, its people's tokens are refused, its subscription is cancelled; rows stay for the books, and
// the addresses of its people stay taken. Idempotent.
StoreResult<void> delete_organization(ControlStore& store, std::string_view org_id);

}  // namespace kavach::sink
