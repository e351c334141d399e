// What Stripe's webhooks are signed with: who does not know the secret, or repeats an old one, is not heard.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <string>

#include "http/outbound/hmac.h"
#include "http/outbound/stripe.h"

namespace kavach::http {
namespace {

constexpr std::string_view kSecret = "whsec_test";
constexpr std::string_view kBody = R"({"id":"evt_1"})";
constexpr std::int64_t kSecond = 1'800'000'000;
constexpr WallMicros kNow = kSecond * kMicrosPerSecond;

std::string signature(std::string_view secret, std::int64_t second = kSecond, std::string_view body = kBody) {
  return hmac_sha256_hex(secret, fmt::format("{}.{}", second, body));
}
std::string header(std::int64_t second, std::string_view signatures) {
  return fmt::format("t={},{}", second, signatures);
}
bool is_signed(std::string_view sent, WallMicros now = kNow, std::string_view secret = kSecret) {
  return is_signed_by_stripe(sent, kBody, secret, now);
}

}  // namespace

TEST_CASE("a signature of Stripe's is the HMAC of its time and the body") {
  CHECK(is_signed(header(kSecond, "v1=" + signature(kSecret))));
  CHECK_FALSE(is_signed(header(kSecond, "v1=" + signature("another"))));
  CHECK_FALSE(is_signed(header(kSecond, "v1=" + signature(kSecret, kSecond, R"({"id":"evt_2"})"))));
  CHECK_FALSE(is_signed(header(kSecond + 1, "v1=" + signature(kSecret))));
  CHECK_FALSE(is_signed(header(kSecond, "v0=" + signature(kSecret))));
}

TEST_CASE("one good signature of several is enough, wherever it stands: secrets are rolled over") {
  const std::string good = "v1=" + signature(kSecret), old = "v1=" + signature("old"), short_one = "v1=00";
  for (const std::string& signatures :
       {good + "," + old, old + "," + good, short_one + "," + good + ",v0=ff", "v1=," + good})
    CHECK(is_signed(header(kSecond, signatures)));
  CHECK_FALSE(is_signed(header(kSecond, old + "," + short_one)));
  CHECK(is_signed(good + ",t=1800000000"));
}

TEST_CASE("a signature is good for five minutes, by either's clock") {
  const std::string sent = header(kSecond, "v1=" + signature(kSecret));
  constexpr WallMicros kFiveMinutes = 300 * kMicrosPerSecond;
  for (const WallMicros off : {WallMicros{0}, kFiveMinutes, -kFiveMinutes})
    CHECK(is_signed(sent, kNow + off));
  for (const WallMicros off : {kFiveMinutes + kMicrosPerSecond, -kFiveMinutes - kMicrosPerSecond})
    CHECK_FALSE(is_signed(sent, kNow + off));
}

TEST_CASE("what is no signature is none, and without a secret nothing is signed") {
  const std::string v1 = "v1=" + signature(kSecret);
  for (const std::string& sent : {std::string(), std::string("t=1800000000"), v1, "t=," + v1, "t=x," + v1,
                                  "t=1800000000x," + v1, "t=99999999999999999999," + v1,
                                  std::string(",,,=,t"), "t=1800000000,v1=" + signature(kSecret).substr(1)})
    CHECK_FALSE(is_signed(sent));
  CHECK_FALSE(is_signed(header(kSecond, "v1=" + signature("")), kNow, ""));
}

}  // namespace kavach::http
