// POST /v1/billing/webhook: what Stripe tells about checkouts, subscriptions and invoices, processed once.
//
// Stripe repeats events until they are answered with 2xx, and sends them in any order: see
// sink/store/control/billing.h for what that means to the store.
#include <simdjson.h>

#include <algorithm>
#include <iterator>
#include <optional>

#include "engine/log.h"
#include "http/control/endpoint.h"
#include "sink/store/control/billing.h"

namespace kavach::http {
namespace {

using sink::StripeEvent;
using Element = simdjson::dom::element;

constexpr std::pair<std::string_view, StripeEvent::Kind> kKinds[] = {
    {"checkout.session.completed", StripeEvent::Kind::kCheckoutCompleted},
    {"customer.subscription.updated", StripeEvent::Kind::kSubscriptionUpdated},
    {"customer.subscription.deleted", StripeEvent::Kind::kSubscriptionDeleted},
    {"invoice.payment_succeeded", StripeEvent::Kind::kInvoicePaid},
    {"invoice.payment_failed", StripeEvent::Kind::kInvoiceFailed}};

// `pointer`: an RFC 6901 path. Empty: no such text.
std::string text_at(const Element& json, std::string_view pointer) {
  std::string_view text;
  if (json.at_pointer(pointer).get(text) != simdjson::SUCCESS) return {};
  return std::string(text);
}

// The first of them that is there: newer versions of Stripe's API have moved some members.
std::string text_at(const Element& json, std::string_view pointer, std::string_view other) {
  std::string text = text_at(json, pointer);
  return text.empty() ? text_at(json, other) : text;
}

std::optional<std::int64_t> integer_at(const Element& json, std::string_view pointer) {
  std::int64_t value = 0;
  if (json.at_pointer(pointer).get(value) != simdjson::SUCCESS) return std::nullopt;
  return value;
}

// Stripe's times are seconds.
std::optional<WallMicros> time_at(const Element& json, std::string_view pointer) {
  constexpr std::int64_t kSecondsMax = 253'402'300'799;  // the year 9999
  const auto seconds = integer_at(json, pointer);
  if (!seconds || *seconds < 0 || *seconds > kSecondsMax) return std::nullopt;
  return *seconds * kMicrosPerSecond;
}
std::optional<WallMicros> time_at(const Element& json, std::string_view pointer, std::string_view other) {
  const auto time = time_at(json, pointer);
  return time ? time : time_at(json, other);
}

// Kavach's word for a status of Stripe's; empty: it changes nothing yet.
std::string status_of(const Element& subscription) {
  const std::string status = text_at(subscription, "/status");
  Element paused;
  const bool is_paused =
      subscription.at_pointer("/pause_collection").get(paused) == simdjson::SUCCESS && !paused.is_null();
  if (status == "canceled" || status == "incomplete_expired") return "cancelled";
  if (is_paused || status == "paused") return "paused";
  if (status == "past_due" || status == "unpaid") return "past_due";
  return status == "active" || status == "trialing" ? status : std::string();
}

void read_subscription(const Config::Billing& billing, const Element& object, StripeEvent& event) {
  event.subscription_id = text_at(object, "/id");
  event.org_id = text_at(object, "/metadata/org_id");
  event.status = status_of(object);
  const std::string price = text_at(object, "/items/data/0/price/id");
  if (!price.empty() && price == billing.price_pro) event.tier = "pro";
  if (!price.empty() && price == billing.price_max) event.tier = "max";
  event.period_start = time_at(object, "/current_period_start", "/items/data/0/current_period_start");
  event.period_end = time_at(object, "/current_period_end", "/items/data/0/current_period_end");
  event.trial_start = time_at(object, "/trial_start");
  event.trial_end = time_at(object, "/trial_end");
  bool ends = false;
  if (object.at_pointer("/cancel_at_period_end").get(ends) == simdjson::SUCCESS) event.auto_renew = !ends;
}

void read_invoice(const Element& object, StripeEvent& event) {
  event.invoice_id = text_at(object, "/id");
  event.subscription_id = text_at(object, "/subscription", "/parent/subscription_details/subscription");
  event.org_id = text_at(object, "/subscription_details/metadata/org_id",
                         "/parent/subscription_details/metadata/org_id");
  event.currency = text_at(object, "/currency");
  event.invoice_url = text_at(object, "/hosted_invoice_url");
  const bool paid = event.kind == StripeEvent::Kind::kInvoicePaid;
  event.amount_cents = integer_at(object, paid ? "/amount_paid" : "/amount_due").value_or(0);
}

// False: the event lacks what every one of its kind has.
bool read_event(const Config::Billing& billing, const Element& json, StripeEvent& event) {
  Element object;
  const auto created = time_at(json, "/created");
  if (!created || json.at_pointer("/data/object").get(object) != simdjson::SUCCESS) return false;
  event.created_at = *created;
  event.customer_id = text_at(object, "/customer");
  switch (event.kind) {
    case StripeEvent::Kind::kCheckoutCompleted:
      event.session_id = text_at(object, "/id");
      event.subscription_id = text_at(object, "/subscription");
      return !event.session_id.empty() && !event.subscription_id.empty();
    case StripeEvent::Kind::kSubscriptionUpdated:
    case StripeEvent::Kind::kSubscriptionDeleted:
      read_subscription(billing, object, event);
      return !event.subscription_id.empty();
    case StripeEvent::Kind::kInvoicePaid:
    case StripeEvent::Kind::kInvoiceFailed:
      read_invoice(object, event);
      return !event.invoice_id.empty();
  }
  return false;
}

Outcome receive(Call& call) {
  const Config::Billing& billing = call.services.config.billing;
  if (!is_signed_by_stripe(call.stripe_signature, call.raw_body, billing.stripe_webhook_secret,
                           call.services.clock.wall()))
    return refusal(400, "Invalid signature");
  const Reply received{.body = R"({"received":true})"};
  simdjson::dom::parser parser;
  Element json;
  StripeEvent event;
  if (parser.parse(call.raw_body.data(), call.raw_body.size()).get(json) != simdjson::SUCCESS ||
      (event.id = text_at(json, "/id")).empty())
    return refusal(400, "Invalid event");
  const std::string type = text_at(json, "/type");
  const auto kind = std::find_if(std::begin(kKinds), std::end(kKinds),
                                 [&type](const auto& known) { return known.first == type; });
  if (kind == std::end(kKinds)) return received;
  event.kind = kind->second;
  if (!read_event(billing, json, event)) return refusal(400, "Invalid event");
  auto applied = sink::apply_stripe_event(call.store, event);
  if (!applied) return applied.error();
  switch (*applied) {
    case sink::EventAnswer::kApplied:
      call.services.directory_changed();
      break;
    case sink::EventAnswer::kIgnored:
      log::info("billing: event {} ({}) changes nothing here", event.id, type);
      break;
    case sink::EventAnswer::kRepeated:
      break;
  }
  return received;
}

constexpr Field kReceivedFields[] = {{.name = "received", .kind = FieldKind::kFlag, .required = true}};
constexpr Schema kReceived{"WebhookReceived", kReceivedFields};
constexpr int kErrors[] = {400};
constexpr Endpoint kEndpoints[] = {{.method = Method::kPost,
                                    .path = "/v1/billing/webhook",
                                    .tag = "billing",
                                    .summary = "An event of Stripe's, signed by it",
                                    .access = Access::kPublic,
                                    .reply = &kReceived,
                                    .errors = kErrors,
                                    .run = receive}};

}  // namespace

std::span<const Endpoint> stripe_webhook_endpoints() {
  return kEndpoints;
}

}  // namespace kavach::http
