// Stripe: the few calls of Stripe's HTTP API that billing makes, and the check of what its webhooks sign.
//
// Requests are form-encoded, carry the secret key as a bearer token and, where they change something, an
// Idempotency-Key, with which one that failed on the way is sent once more. A failure tells Stripe's own
// words (never the key, never a customer's data); `retryable` is true where Stripe could not be reached or
// was not well.
//
// Any thread but a shard's, several at a time; blocks.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/clock.h"
#include "engine/result.h"
#include "http/outbound/http_client.h"

namespace kavach::http {

struct StripeOptions {
  std::string url;      // "https://api.stripe.com"
  std::string api_key;  // empty: Stripe is not used
  std::int64_t timeout_ms = 10'000;
};

struct StripeCheckout {
  std::string org_id;
  std::string tier;
  std::string price_id;
  std::string customer_id = {};  // empty: Stripe makes one, for `email`
  std::string email = {};
  std::string success_url = {};
  std::string cancel_url = {};
};
struct StripeSession {
  std::string id;
  std::string url;
};

class Stripe {
 public:
  explicit Stripe(StripeOptions options);

  bool configured() const noexcept { return !options_.api_key.empty(); }

  Result<StripeSession> start_checkout(const StripeCheckout& checkout);
  // The URL of a customer's portal.
  Result<std::string> open_portal(std::string_view customer_id, std::string_view return_url);
  // Nothing is charged while it is paused.
  Status set_paused(std::string_view subscription_id, bool paused);
  Status set_auto_renew(std::string_view subscription_id, bool auto_renew);
  // At once. One that Stripe does not know (any more) counts as cancelled.
  Status cancel(std::string_view subscription_id);
  // A new subscription of a customer whose last one ended, charged to how they paid; its id.
  Result<std::string> subscribe(const StripeCheckout& checkout);

  // For what must not happen twice at the same time to one organization on this node: what is asked of Stripe
  // and the store's change that follows.
  std::unique_lock<std::mutex> serialize(std::string_view org_id);
  void abort() noexcept { client_->abort(); }

 private:
  using Form = std::vector<std::pair<std::string, std::string>>;
  struct Answer {
    int status = 0;
    std::string body;
  };
  Result<Answer> call(std::string_view method, const std::string& path, const Form& form);
  Status update(std::string_view subscription_id, const Form& form);

  const StripeOptions options_;
  const std::unique_ptr<HttpClient> client_;
  std::array<std::mutex, 64> locks_;  // by organization
};

// Whether one of the signatures in `Stripe-Signature: t=<seconds>,v1=<hex>[,v1=...]` is that of `body` under
// `secret`, and made within five minutes of `now`. False without a secret.
bool is_signed_by_stripe(std::string_view header, std::string_view body, std::string_view secret,
                         WallMicros now);

}  // namespace kavach::http
