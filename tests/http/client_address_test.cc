// Who a request comes from: X-Forwarded-For counts from trusted proxies only.
#include "http/control/client_address.h"

#include <doctest/doctest.h>

namespace kavach::http {

TEST_CASE("nobody's header is believed unless the config names them") {
  const auto none = TrustedProxies::parse("");
  REQUIRE(none.has_value());
  CHECK(none->client("10.0.0.1", "203.0.113.9") == "10.0.0.1");
  const auto some = TrustedProxies::parse("10.0.0.0/8, 192.0.2.7,fd00::/8");
  REQUIRE(some.has_value());
  CHECK(some->client("203.0.113.1", "198.51.100.1") == "203.0.113.1");
  CHECK(some->client("192.0.2.8", "198.51.100.1") == "192.0.2.8");
}

TEST_CASE("the right-most address that is no proxy's is the client") {
  const auto proxies = TrustedProxies::parse("10.0.0.0/8,192.0.2.7,fd00::/8");
  REQUIRE(proxies.has_value());
  CHECK(proxies->client("10.1.2.3", "203.0.113.9") == "203.0.113.9");
  CHECK(proxies->client("10.1.2.3", "6.6.6.6, 203.0.113.9, 192.0.2.7") == "203.0.113.9");
  CHECK(proxies->client("fd00::1", "2001:db8::5") == "2001:db8::5");
  CHECK(proxies->client("::ffff:10.0.0.1", "203.0.113.9") == "203.0.113.9");
  CHECK(proxies->client("10.0.0.1", "10.0.0.3,10.0.0.2") == "10.0.0.3");
  CHECK(proxies->client("10.0.0.1", "") == "10.0.0.1");
}

TEST_CASE("what is no address ends the chain") {
  const auto proxies = TrustedProxies::parse("10.0.0.0/8");
  REQUIRE(proxies.has_value());
  CHECK(proxies->client("10.0.0.1", "203.0.113.9, unknown") == "10.0.0.1");
  CHECK(proxies->client("10.0.0.1", "garbage, 10.0.0.2") == "10.0.0.2");
}

TEST_CASE("a list that is none is refused by its part") {
  for (const char* const list : {"10.0.0.0/33", "10.0.0", "proxy.example", "10.0.0.1, ::/200"}) {
    const auto parsed = TrustedProxies::parse(list);
    CAPTURE(list);
    REQUIRE_FALSE(parsed.has_value());
    CHECK(parsed.error().message.find("control.trusted_proxies") != std::string::npos);
  }
}

}  // namespace kavach::http
