#include "http/auth/authenticate.h"

#include "http/auth/api_key.h"

namespace kavach::http {
namespace {

constexpr std::string_view kBearer = "WWW-Authenticate: Bearer\r\n";
constexpr std::string_view kNoKey = R"({"detail":"Missing or malformed Authorization header"})";
constexpr std::string_view kBadKey = R"({"detail":"Invalid API key"})";
constexpr std::string_view kPaused =
    R"({"detail":"Subscription is paused. Resume to continue.","subscription_status":"paused"})";
constexpr std::string_view kCancelled =
    R"({"detail":"Subscription is cancelled. Reactivate to resume.","subscription_status":"cancelled"})";

}  // namespace

const ApiKey* authenticate(KeyRing& keys, const Request& request, WallMicros now, Response& refusal) {
  refusal = {.status = 401, .body = kNoKey, .headers = kBearer};
  const auto raw = key_of(request);
  if (!raw) return nullptr;
  const ApiKey* key = keys.table().find(digest_of(*raw));
  if (key == nullptr || !key->active) {
    refusal.body = kBadKey;
    if (key != nullptr) keys.note_failure(*key, now);
    return nullptr;
  }
  keys.note_use(*key, now);
  const Subscription subscription = keys.table().org_of(*key).subscription;
  if (subscription == Subscription::kActive) return key;
  refusal = {.status = 403, .body = subscription == Subscription::kPaused ? kPaused : kCancelled};
  return nullptr;
}

}  // namespace kavach::http
