#include "http/outbound/stripe.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <simdjson.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <optional>

#include "engine/check.h"
#include "engine/ids.h"
#include "http/outbound/hmac.h"
#include "http/outbound/percent_code.h"

namespace kavach::http {
namespace {

constexpr std::int64_t kToleranceSeconds = 300;
constexpr int kTries = 2;

std::string idempotency_key() {
  std::array<std::uint8_t, 16> bytes{};
  KAVACH_CHECK(RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) == 1, "no random bytes");
  return to_hex(bytes.data(), bytes.size());
}

// A text of the object that an answer is; empty: it is not there.
std::string member(const std::string& json, const char* name) {
  simdjson::dom::parser parser;
  std::string_view text;
  if (parser.parse(json).at_key(name).get(text) != simdjson::SUCCESS) return {};
  return std::string(text);
}

// What Stripe's error object says. Its message may repeat what was sent, so only its words for the kind
// count.
std::string reason_of(const std::string& json) {
  simdjson::dom::parser parser;
  simdjson::dom::object error;
  if (parser.parse(json).at_key("error").get(error) != simdjson::SUCCESS) return {};
  std::string reason;
  for (const char* const name : {"type", "code", "decline_code"}) {
    std::string_view text;
    if (error[name].get(text) == simdjson::SUCCESS)
      reason += fmt::format("{}{}", reason.empty() ? "" : ", ", text);
  }
  return reason;
}

Failure refused(int status, const std::string& body) {
  const std::string reason = reason_of(body);
  return {fmt::format("Stripe answered {}{}", status, reason.empty() ? "" : " (" + reason + ")"),
          status == 429 || status >= 500};
}

std::optional<std::int64_t> seconds_of(std::string_view text) {
  std::int64_t seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return seconds;
}

}  // namespace

Stripe::Stripe(StripeOptions options)
    : options_(std::move(options)),
      client_(make_http_client({.timeout_ms = options_.timeout_ms, .allow_private = true})) {}

Result<Stripe::Answer> Stripe::call(std::string_view method, const std::string& path, const Form& form) {
  HttpRequest request{.method = std::string(method), .url = options_.url + path};
  request.headers = {{"Authorization", "Bearer " + options_.api_key},
                     {"Content-Type", "application/x-www-form-urlencoded"}};
  if (method == "POST") request.headers.push_back({"Idempotency-Key", idempotency_key()});
  for (const auto& [name, value] : form) {
    request.body +=
        fmt::format("{}{}={}", request.body.empty() ? "" : "&", percent_encode(name), percent_encode(value));
  }
  for (int left = kTries;; --left) {
    auto sent = client_->send(request);
    const bool passes = sent ? sent->status >= 500 : sent.error().retryable;
    if (passes && left > 1) continue;
    if (!sent) return Failure{"Stripe could not be reached: " + sent.error().message, sent.error().retryable};
    return Answer{sent->status, std::move(sent->body)};
  }
}

Result<StripeSession> Stripe::start_checkout(const StripeCheckout& checkout) {
  Form form{{"mode", "subscription"},
            {"line_items[0][price]", checkout.price_id},
            {"line_items[0][quantity]", "1"},
            {"client_reference_id", checkout.org_id},
            {"metadata[org_id]", checkout.org_id},
            {"metadata[tier]", checkout.tier},
            {"subscription_data[metadata][org_id]", checkout.org_id},
            {"subscription_data[metadata][tier]", checkout.tier},
            {"success_url", checkout.success_url},
            {"cancel_url", checkout.cancel_url}};
  if (checkout.customer_id.empty()) {
    form.emplace_back("customer_email", checkout.email);
  } else {
    form.emplace_back("customer", checkout.customer_id);
  }
  auto answer = call("POST", "/v1/checkout/sessions", form);
  if (!answer) return answer.error();
  if (answer->status != 200) return refused(answer->status, answer->body);
  StripeSession session{member(answer->body, "id"), member(answer->body, "url")};
  if (session.id.empty() || session.url.empty()) return failure("Stripe answered without a checkout session");
  return session;
}

Result<std::string> Stripe::open_portal(std::string_view customer_id, std::string_view return_url) {
  auto answer = call("POST", "/v1/billing_portal/sessions",
                     {{"customer", std::string(customer_id)}, {"return_url", std::string(return_url)}});
  if (!answer) return answer.error();
  if (answer->status != 200) return refused(answer->status, answer->body);
  std::string url = member(answer->body, "url");
  if (url.empty()) return failure("Stripe answered without a portal");
  return Result<std::string>(boost::system::in_place_value, std::move(url));
}

Status Stripe::update(std::string_view subscription_id, const Form& form) {
  auto answer = call("POST", "/v1/subscriptions/" + percent_encode(subscription_id), form);
  if (!answer) return answer.error();
  if (answer->status != 200) return refused(answer->status, answer->body);
  return {};
}

Status Stripe::set_paused(std::string_view subscription_id, bool paused) {
  if (paused) return update(subscription_id, {{"pause_collection[behavior]", "void"}});
  return update(subscription_id, {{"pause_collection", ""}});
}

Status Stripe::set_auto_renew(std::string_view subscription_id, bool auto_renew) {
  return update(subscription_id, {{"cancel_at_period_end", auto_renew ? "false" : "true"}});
}

Status Stripe::cancel(std::string_view subscription_id) {
  auto answer = call("DELETE", "/v1/subscriptions/" + percent_encode(subscription_id), {});
  if (!answer) return answer.error();
  if (answer->status != 200 && answer->status != 404) return refused(answer->status, answer->body);
  return {};
}

Result<std::string> Stripe::subscribe(const StripeCheckout& checkout) {
  auto answer = call("POST", "/v1/subscriptions",
                     {{"customer", checkout.customer_id},
                      {"items[0][price]", checkout.price_id},
                      {"payment_behavior", "error_if_incomplete"},
                      {"metadata[org_id]", checkout.org_id},
                      {"metadata[tier]", checkout.tier}});
  if (!answer) return answer.error();
  if (answer->status != 200) return refused(answer->status, answer->body);
  std::string id = member(answer->body, "id");
  if (id.empty()) return failure("Stripe answered without a subscription");
  return Result<std::string>(boost::system::in_place_value, std::move(id));
}

std::unique_lock<std::mutex> Stripe::serialize(std::string_view org_id) {
  return std::unique_lock(locks_[std::hash<std::string_view>{}(org_id) % locks_.size()]);
}

bool is_signed_by_stripe(std::string_view header, std::string_view body, std::string_view secret,
                         WallMicros now) {
  if (secret.empty()) return false;
  std::string_view stamp;
  std::vector<std::string_view> signatures;
  while (!header.empty()) {
    const std::string_view item = header.substr(0, header.find(','));
    header.remove_prefix(std::min(header.size(), item.size() + 1));
    if (item.starts_with("t=")) stamp = item.substr(2);
    if (item.starts_with("v1=")) signatures.push_back(item.substr(3));
  }
  const auto made = seconds_of(stamp);
  const std::int64_t now_s = now / kMicrosPerSecond;
  if (!made || *made < now_s - kToleranceSeconds || *made > now_s + kToleranceSeconds) return false;

  const std::string expected = hmac_sha256_hex(secret, fmt::format("{}.{}", stamp, body));
  bool found = false;
  for (const std::string_view signature : signatures) {
    found |= signature.size() == expected.size() &&
             CRYPTO_memcmp(signature.data(), expected.data(), expected.size()) == 0;
  }
  return found;
}

}  // namespace kavach::http
