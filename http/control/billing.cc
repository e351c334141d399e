// The endpoints of billing but the webhook (contract/agentkavach.md section 8).
//
// With Stripe, whatever changes a subscription is asked of Stripe first, and the store follows only when
// Stripe agrees. Without it only the store changes; outside node.environment "prod" checkouts are then paid
// by confirm-payment, and tiers changed at will: the development path.
#include <fmt/format.h>

#include <cmath>

#include "engine/calendar.h"
#include "engine/log.h"
#include "http/control/endpoint.h"
#include "http/control/plan_limits.h"
#include "sink/store/control/billing.h"

namespace kavach::http {
namespace {

using sink::Move;
using sink::SubscriptionRow;

// --- what they take and give -------------------------------------------------------------------------------

constexpr std::string_view kPaidTiers[] = {"pro", "max"};
constexpr std::string_view kTiers[] = {"free", "pro", "max"};
constexpr TextRule kUrlRule{.chars_min = 1, .chars_max = 2048};

constexpr Field kCheckoutFields[] = {
    {.name = "tier", .kind = FieldKind::kChoice, .required = true, .choices = kPaidTiers},
    {.name = "success_url", .text = kUrlRule},
    {.name = "cancel_url", .text = kUrlRule}};
constexpr Schema kCheckout{"Checkout", kCheckoutFields};
constexpr Field kSessionFields[] = {{.name = "checkout_url", .required = true},
                                    {.name = "session_id", .required = true}};
constexpr Schema kSession{"CheckoutSession", kSessionFields};

constexpr Field kOpenPortalFields[] = {{.name = "return_url", .text = kUrlRule}};
constexpr Schema kOpenPortal{"OpenPortal", kOpenPortalFields};
constexpr Field kPortalFields[] = {{.name = "portal_url", .required = true}};
constexpr Schema kPortal{"Portal", kPortalFields};

constexpr Field kConfirmFields[] = {
    {.name = "session_id", .required = true, .text = {.chars_min = 1, .chars_max = 255}}};
constexpr Schema kConfirm{"ConfirmPayment", kConfirmFields};
constexpr Field kChangeTierFields[] = {
    {.name = "tier", .kind = FieldKind::kChoice, .required = true, .choices = kTiers}};
constexpr Schema kChangeTier{"ChangeTier", kChangeTierFields};

constexpr Field kTrialFields[] = {
    {.name = "active", .kind = FieldKind::kFlag, .required = true},
    {.name = "started_at", .kind = FieldKind::kTimestamp, .required = true, .nullable = true},
    {.name = "ends_at", .kind = FieldKind::kTimestamp, .required = true, .nullable = true},
    {.name = "days_left", .kind = FieldKind::kInteger, .required = true}};
constexpr Schema kTrial{"Trial", kTrialFields};
constexpr Field kPlanFields[] = {
    {.name = "tier", .required = true},
    {.name = "subscription_status", .required = true},
    {.name = "events_per_day", .kind = FieldKind::kInteger, .required = true, .nullable = true},
    {.name = "max_agents", .kind = FieldKind::kInteger, .required = true, .nullable = true},
    {.name = "burst_per_minute", .kind = FieldKind::kInteger, .required = true, .nullable = true},
    {.name = "retention_days", .kind = FieldKind::kInteger, .required = true},
    {.name = "events_used_today", .kind = FieldKind::kInteger, .required = true},
    {.name = "active_agents", .kind = FieldKind::kInteger, .required = true},
    {.name = "price_usd_monthly", .kind = FieldKind::kNumber, .required = true},
    {.name = "current_period_start", .kind = FieldKind::kTimestamp, .required = true, .nullable = true},
    {.name = "current_period_end", .kind = FieldKind::kTimestamp, .required = true, .nullable = true},
    {.name = "auto_renew", .kind = FieldKind::kFlag, .required = true},
    {.name = "cancel_at_period_end", .kind = FieldKind::kFlag, .required = true},
    {.name = "trial", .kind = FieldKind::kObject, .required = true, .item = &kTrial},
    {.name = "paused_at", .kind = FieldKind::kTimestamp, .required = true, .nullable = true},
    {.name = "cancelled_at", .kind = FieldKind::kTimestamp, .required = true, .nullable = true}};
constexpr Schema kPlan{"Plan", kPlanFields};

constexpr Field kRenewFields[] = {{.name = "auto_renew", .kind = FieldKind::kFlag, .required = true}};
constexpr Schema kRenew{"AutoRenew", kRenewFields};

constexpr Field kLimitFields[] = {
    {.name = "limit", .kind = FieldKind::kInteger, .at_least = 1, .at_most = 500, .preset = "50"}};
constexpr Schema kLimit{"PaymentsQuery", kLimitFields};
constexpr Field kPaymentFields[] = {{.name = "id", .required = true},
                                    {.name = "amount_usd", .kind = FieldKind::kNumber, .required = true},
                                    {.name = "currency", .required = true},
                                    {.name = "status", .required = true},
                                    {.name = "tier", .required = true, .nullable = true},
                                    {.name = "description", .required = true, .nullable = true},
                                    {.name = "invoice_url", .required = true, .nullable = true},
                                    {.name = "created_at", .kind = FieldKind::kTimestamp, .required = true}};
constexpr Schema kPayment{"Payment", kPaymentFields};
constexpr Field kPaymentsFields[] = {
    {.name = "payments", .kind = FieldKind::kList, .required = true, .item = &kPayment},
    {.name = "total", .kind = FieldKind::kInteger, .required = true}};
constexpr Schema kPayments{"Payments", kPaymentsFields};

// --- what they share ---------------------------------------------------------------------------------------

bool in_development(const Call& call) {
  return !call.services.stripe.configured() && call.services.config.node.environment != "prod";
}

Reply only_in_development() {
  return refusal(403, "Only available in development");
}

Reply not_configured() {
  return refusal(503, "Billing is not configured");
}

// The owner learns that it was Stripe; Stripe's own words are for the log.
Reply stripe_refused(const Call& call, const Failure& why) {
  log::warning("billing: organization {}: {}", call.caller.org_id, why.message);
  return refusal(502, why.retryable ? "Stripe could not be reached, nothing was changed. Retry later"
                                    : "Stripe refused the request, nothing was changed");
}

std::string price_id(const Call& call, std::string_view tier) {
  const Config::Billing& billing = call.services.config.billing;
  if (tier == "pro") return billing.price_pro;
  return tier == "max" ? billing.price_max : std::string();
}

double price_usd(const quota::TierTable& tiers, std::string_view name) {
  const quota::Tier* const tier = tiers.find(name);
  return tier != nullptr ? tier->price_usd_monthly : 0;
}

Outcome show_plan(Call& call) {
  auto row = sink::subscription_of(call.store, call.caller.org_id);
  if (!row) return row.error();
  auto usage = sink::plan_usage(call.store, call.caller.org_id);
  if (!usage) return usage.error();
  const auto tiers = call.services.tiers.get();
  const quota::Policy policy = plan_limits(*row, *tiers);
  const quota::Tier* const tier = tiers->find(row->tier);
  const WallMicros now = call.services.clock.wall();
  const WallMicros trial_left = row->status == "trialing" ? row->trial_end.value_or(0) - now : 0;

  JsonOut out;
  out.begin().text("tier", row->tier).text("subscription_status", row->status);
  show_limit(out, "events_per_day", policy.events_per_day);
  show_limit(out, "max_agents", policy.agents_max);
  show_limit(out, "burst_per_minute", policy.burst_per_minute);
  out.integer("retention_days", tier != nullptr ? tier->retention_days : quota::Tier{}.retention_days)
      .integer("events_used_today", usage->events_today)
      .integer("active_agents", usage->active_agents)
      .number("price_usd_monthly", price_usd(*tiers, row->tier))
      .time("current_period_start", row->period_start)
      .time("current_period_end", row->period_end)
      .flag("auto_renew", row->auto_renew)
      .flag("cancel_at_period_end", !row->auto_renew);
  out.key("trial").begin().flag("active", trial_left > 0);
  out.time("started_at", row->trial_start).time("ends_at", row->trial_end);
  out.integer("days_left", trial_left > 0 ? (trial_left + kMicrosPerDay - 1) / kMicrosPerDay : 0).end();
  out.time("paused_at", row->paused_at).time("cancelled_at", row->cancelled_at).end();
  return Reply{.body = out.take()};
}

// --- life cycle --------------------------------------------------------------------------------------------

Status tell_stripe(Call& call, const SubscriptionRow& row, Move move, std::string& new_subscription) {
  Stripe& stripe = call.services.stripe;
  if (!stripe.configured() || row.subscription_id.empty()) return {};
  switch (move) {
    case Move::kPause:
      return stripe.set_paused(row.subscription_id, true);
    case Move::kResume:
      return stripe.set_paused(row.subscription_id, false);
    case Move::kCancel:
      return stripe.cancel(row.subscription_id);
    case Move::kReactivate:
      break;
  }
  if (row.status == "paused") return stripe.set_paused(row.subscription_id, false);
  // One that was cancelled has ended at Stripe for good: another one takes its place.
  auto made = stripe.subscribe({.org_id = call.caller.org_id,
                                .tier = row.tier,
                                .price_id = price_id(call, row.tier),
                                .customer_id = row.customer_id});
  if (!made) return made.error();
  new_subscription = std::move(*made);
  return {};
}

Reply impossible(Move move, std::string_view status) {
  const std::string_view verb = move == Move::kPause    ? "paused"
                                : move == Move::kResume ? "resumed"
                                : move == Move::kCancel ? "cancelled"
                                                        : "reactivated";
  return refusal(409, fmt::format("Subscription is {} and cannot be {}", status, verb));
}

template <Move kMove>
Outcome move(Call& call) {
  const auto alone = call.services.stripe.serialize(call.caller.org_id);
  auto row = sink::subscription_of(call.store, call.caller.org_id);
  if (!row) return row.error();
  if (!sink::may_move(kMove, row->status)) return impossible(kMove, row->status);
  std::string new_subscription;
  if (const Status told = tell_stripe(call, *row, kMove, new_subscription); !told)
    return stripe_refused(call, told.error());
  auto moved = sink::move_subscription(call.store, call.caller.org_id, kMove, new_subscription);
  if (!moved) return moved.error();
  if (!*moved) {
    // Another node was faster, and what it did counts.
    row = sink::subscription_of(call.store, call.caller.org_id);
    if (!row) return row.error();
    return impossible(kMove, row->status);
  }
  call.services.directory_changed();
  return show_plan(call);
}

Outcome toggle_auto_renew(Call& call) {
  const auto alone = call.services.stripe.serialize(call.caller.org_id);
  auto row = sink::subscription_of(call.store, call.caller.org_id);
  if (!row) return row.error();
  if (row->tier == "free") return refusal(400, "The free tier has no renewal");
  if (row->status == "cancelled") return refusal(409, "Subscription is cancelled and does not renew");
  const bool wanted = !row->auto_renew;
  Stripe& stripe = call.services.stripe;
  if (stripe.configured() && !row->subscription_id.empty()) {
    if (const Status told = stripe.set_auto_renew(row->subscription_id, wanted); !told)
      return stripe_refused(call, told.error());
  }
  if (auto set = sink::set_auto_renew(call.store, call.caller.org_id, wanted); !set) return set.error();
  return Reply{.body = JsonOut().begin().flag("auto_renew", wanted).end().take()};
}

Outcome change_tier(Call& call) {
  if (!in_development(call)) return only_in_development();
  if (auto set = sink::set_tier(call.store, call.caller.org_id, call.body.text("tier")); !set)
    return set.error();
  call.services.directory_changed();
  return show_plan(call);
}

Outcome delete_organization(Call& call) {
  const auto alone = call.services.stripe.serialize(call.caller.org_id);
  auto row = sink::subscription_of(call.store, call.caller.org_id);
  if (!row) return row.error();
  std::string none;
  if (row->status != "cancelled") {
    if (const Status told = tell_stripe(call, *row, Move::kCancel, none); !told)
      return stripe_refused(call, told.error());
  }
  if (auto gone = sink::delete_organization(call.store, call.caller.org_id); !gone) return gone.error();
  call.services.directory_changed();
  return Reply{.status = 204};
}

// --- checkout, portal, payments ----------------------------------------------------------------------------

bool is_web_url(std::string_view url) {
  return parse_target(url).has_value();
}

// False: a URL of the body is none, and the reader knows.
bool check_url(Call& call, std::string_view name) {
  if (!call.body.has(name) || is_web_url(call.body.text(name))) return true;
  call.reader.refuse("body", name, "Use an http:// or https:// URL", call.body.text(name));
  return false;
}

Outcome start_checkout(Call& call) {
  const bool success = check_url(call, "success_url");
  const bool cancel = check_url(call, "cancel_url");
  if (!success || !cancel) return invalid(call);
  const Config::Billing& billing = call.services.config.billing;
  const std::string tier(call.body.text("tier"));
  const auto answer = [](std::string_view url, std::string_view id) {
    return Reply{.body = JsonOut().begin().text("checkout_url", url).text("session_id", id).end().take()};
  };
  if (in_development(call)) {
    const std::string id = "cs_dev_" + random_token();
    if (auto kept = sink::add_checkout(call.store, id, call.caller.org_id, tier); !kept) return kept.error();
    std::string url(call.body.text_or("success_url", billing.success_url));
    url += (url.find('?') == std::string::npos ? "?session_id=" : "&session_id=") + id;
    return answer(url, id);
  }
  const std::string price = price_id(call, tier);
  if (!call.services.stripe.configured() || price.empty()) return not_configured();
  auto row = sink::subscription_of(call.store, call.caller.org_id);
  if (!row) return row.error();
  if (!row->subscription_id.empty() && row->status != "cancelled")
    return refusal(409, "There is a subscription already. Change it in the portal");
  auto session = call.services.stripe.start_checkout(
      {.org_id = call.caller.org_id,
       .tier = tier,
       .price_id = price,
       .customer_id = row->customer_id,
       .email = call.caller.email,
       .success_url = std::string(call.body.text_or("success_url", billing.success_url)),
       .cancel_url = std::string(call.body.text_or("cancel_url", billing.cancel_url))});
  if (!session) return stripe_refused(call, session.error());
  if (auto kept = sink::add_checkout(call.store, session->id, call.caller.org_id, tier); !kept)
    return kept.error();
  return answer(session->url, session->id);
}

Outcome open_portal(Call& call) {
  if (!check_url(call, "return_url")) return invalid(call);
  auto row = sink::subscription_of(call.store, call.caller.org_id);
  if (!row) return row.error();
  if (row->customer_id.empty()) return refusal(400, "No billing account yet. Complete a checkout first");
  if (!call.services.stripe.configured()) return not_configured();
  auto url = call.services.stripe.open_portal(
      row->customer_id, call.body.text_or("return_url", call.services.config.billing.return_url));
  if (!url) return stripe_refused(call, url.error());
  return Reply{.body = JsonOut().begin().text("portal_url", *url).end().take()};
}

Outcome confirm_payment(Call& call) {
  if (!in_development(call)) return only_in_development();
  const auto tiers = call.services.tiers.get();
  auto confirmed = sink::confirm_checkout(
      call.store, call.body.text("session_id"), call.caller.org_id,
      [&](std::string_view tier) { return std::llround(price_usd(*tiers, tier) * 100); });
  if (!confirmed) return confirmed.error();
  if (!*confirmed) return not_found("Checkout session");
  call.services.directory_changed();
  return show_plan(call);
}

Outcome list_payments(Call& call) {
  auto payments = sink::payments_of(call.store, call.caller.org_id, call.query.integer("limit"));
  if (!payments) return payments.error();
  JsonOut out;
  out.begin().key("payments").begin_list();
  for (const sink::Payment& payment : payments->newest) {
    out.begin()
        .text("id", "pay_" + payment.id)
        .number("amount_usd", static_cast<double>(payment.amount_cents) / 100)
        .text("currency", payment.currency)
        .text("status", payment.status)
        .text_or_null("tier", payment.tier)
        .text_or_null("description", payment.description)
        .text_or_null("invoice_url", payment.invoice_url)
        .time("created_at", payment.created_at)
        .end();
  }
  out.end_list().integer("total", payments->total).end();
  return Reply{.body = out.take()};
}

// --- the table ---------------------------------------------------------------------------------------------

constexpr std::string_view kTag = "billing";
constexpr int kMoveErrors[] = {409, 502};
constexpr int kPortalErrors[] = {400, 502};
constexpr int kRenewErrors[] = {400, 409, 502};
constexpr int kStripeErrors[] = {502};
constexpr int kConfirmErrors[] = {404};

constexpr Endpoint move_row(std::string_view path, std::string_view summary, Outcome (*run)(Call&)) {
  return {.method = Method::kPost,
          .path = path,
          .tag = kTag,
          .summary = summary,
          .access = Access::kOwner,
          .reply = &kPlan,
          .errors = kMoveErrors,
          .run = run};
}
constexpr Endpoint kEndpoints[] = {
    {.method = Method::kGet,
     .path = "/v1/billing/plan",
     .tag = kTag,
     .summary = "The plan, its limits and what is used of them",
     .access = Access::kOwner,
     .reply = &kPlan,
     .run = show_plan},
    {.method = Method::kPost,
     .path = "/v1/billing/checkout",
     .tag = kTag,
     .summary = "Begin to buy a tier",
     .access = Access::kOwner,
     .body = &kCheckout,
     .reply = &kSession,
     .errors = kMoveErrors,
     .run = start_checkout},
    {.method = Method::kPost,
     .path = "/v1/billing/portal",
     .tag = kTag,
     .summary = "Open Stripe's portal",
     .access = Access::kOwner,
     .body = &kOpenPortal,
     .reply = &kPortal,
     .errors = kPortalErrors,
     .run = open_portal},
    {.method = Method::kPost,
     .path = "/v1/billing/confirm-payment",
     .tag = kTag,
     .summary = "Pay a development checkout",
     .access = Access::kOwner,
     .body = &kConfirm,
     .reply = &kPlan,
     .errors = kConfirmErrors,
     .run = confirm_payment},
    {.method = Method::kPost,
     .path = "/v1/billing/change-tier",
     .tag = kTag,
     .summary = "Change the tier, in development",
     .access = Access::kOwner,
     .body = &kChangeTier,
     .reply = &kPlan,
     .run = change_tier},
    move_row("/v1/billing/pause", "Pause: ingest is refused", move<Move::kPause>),
    move_row("/v1/billing/resume", "Resume what is paused", move<Move::kResume>),
    move_row("/v1/billing/cancel", "Cancel at once: ingest is refused", move<Move::kCancel>),
    move_row("/v1/billing/reactivate", "Reactivate what is paused or cancelled", move<Move::kReactivate>),
    {.method = Method::kPost,
     .path = "/v1/billing/toggle-auto-renew",
     .tag = kTag,
     .summary = "Renew at the period's end, or end there",
     .access = Access::kOwner,
     .reply = &kRenew,
     .errors = kRenewErrors,
     .run = toggle_auto_renew},
    {.method = Method::kGet,
     .path = "/v1/billing/payments",
     .tag = kTag,
     .summary = "Payments, newest first",
     .access = Access::kOwner,
     .query = &kLimit,
     .reply = &kPayments,
     .run = list_payments},
    {.method = Method::kDelete,
     .path = "/v1/billing/delete-organization",
     .tag = kTag,
     .summary = "Delete the organization",
     .access = Access::kOwner,
     .status = 204,
     .errors = kStripeErrors,
     .run = delete_organization},
};

}  // namespace

std::span<const Endpoint> billing_endpoints() {
  return kEndpoints;
}

}  // namespace kavach::http
