// AddressGuard: which addresses are public, at both ends of every block; and what the client makes of it.
#include "http/outbound/address_guard.h"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <string>

#include "http/outbound/http_client.h"

namespace kavach::http {
namespace {

bool is_public(const std::string& text) {
  sockaddr_storage storage{};
  if (text.find(':') == std::string::npos) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    REQUIRE(::inet_pton(AF_INET, text.c_str(), &address.sin_addr) == 1);
    std::memcpy(&storage, &address, sizeof(address));
  } else {
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    REQUIRE(::inet_pton(AF_INET6, text.c_str(), &address.sin6_addr) == 1);
    std::memcpy(&storage, &address, sizeof(address));
  }
  return is_public_address(reinterpret_cast<const sockaddr&>(storage));
}

TEST_CASE("public addresses are allowed, up to the last one before each special block") {
  for (const std::string address : {"1.0.0.0",
                                    "8.8.8.8",
                                    "9.255.255.255",
                                    "11.0.0.0",
                                    "100.63.255.255",
                                    "100.128.0.0",
                                    "126.255.255.255",
                                    "128.0.0.0",
                                    "169.253.255.255",
                                    "169.255.0.0",
                                    "172.15.255.255",
                                    "172.32.0.0",
                                    "191.255.255.255",
                                    "192.0.1.0",
                                    "192.0.3.0",
                                    "192.88.98.255",
                                    "192.88.100.0",
                                    "192.167.255.255",
                                    "192.169.0.0",
                                    "198.17.255.255",
                                    "198.20.0.0",
                                    "198.51.99.255",
                                    "198.51.101.0",
                                    "203.0.112.255",
                                    "203.0.114.0",
                                    "223.255.255.255",
                                    "2000::",
                                    "2001:200::",
                                    "2001:4860:4860::8888",
                                    "2001:db7:ffff::",
                                    "2001:db9::",
                                    "2003::",
                                    "2606:4700::1111",
                                    "3ffe:ffff::",
                                    "3fff:1000::",
                                    "::ffff:8.8.8.8",
                                    "64:ff9b::8.8.8.8"}) {
    CAPTURE(address);
    CHECK(is_public(address));
  }
}

TEST_CASE("addresses with a meaning inside of a machine or a network are refused") {
  for (const std::string address :
       {"0.0.0.0",         "0.255.255.255",  "10.0.0.0",        "10.255.255.255",  "100.64.0.0",
        "100.127.255.255", "127.0.0.1",      "127.255.255.255", "169.254.0.0",     "169.254.169.254",
        "169.254.255.255", "172.16.0.0",     "172.31.255.255",  "192.0.0.0",       "192.0.0.255",
        "192.0.2.1",       "192.88.99.1",    "192.168.0.0",     "192.168.255.255", "198.18.0.0",
        "198.19.255.255",  "198.51.100.7",   "203.0.113.7",     "224.0.0.1",       "239.255.255.255",
        "240.0.0.0",       "255.255.255.255"}) {
    CAPTURE(address);
    CHECK_FALSE(is_public(address));
    CHECK_FALSE(is_public("::ffff:" + address));
    CHECK_FALSE(is_public("64:ff9b::" + address));
    CHECK_FALSE(is_public("::" + address));  // the old IPv4-compatible form
  }
  for (const std::string address : {"::",
                                    "::1",
                                    "100::",
                                    "64:ff9b:1::8.8.8.8",
                                    "::ffff:0:8.8.8.8",
                                    "1fff:ffff::",
                                    "2001::",
                                    "2001::1",
                                    "2001:0:53aa:64c:0:fbff:b247:4bd6",
                                    "2001:1ff:ffff::",
                                    "2001:db8::1",
                                    "2001:db8:ffff::",
                                    "2002:808:808::",
                                    "3fff::",
                                    "3fff:fff:ffff::",
                                    "4000::",
                                    "5f00::",
                                    "fc00::1",
                                    "fdff::1",
                                    "fe80::1",
                                    "febf::1",
                                    "fec0::1",
                                    "ff02::1"}) {
    CAPTURE(address);
    CHECK_FALSE(is_public(address));
  }
}

TEST_CASE("what is no IP address is not public") {
  sockaddr_storage storage{};
  storage.ss_family = AF_UNIX;
  CHECK_FALSE(is_public_address(reinterpret_cast<const sockaddr&>(storage)));
}

TEST_CASE("the client refuses a private target in every spelling, finally, and tells no more than its host") {
  const auto client = make_http_client({.timeout_ms = 2'000});
  for (const std::string host :
       {"127.0.0.1:9", "localhost:9", "[::1]:9", "2130706433:9", "0x7f.1:9", "017700000001:9",
        "[::ffff:127.0.0.1]:9", "169.254.169.254", "0:9", "10.0.0.1", "user:s3cret@127.0.0.1:9"}) {
    CAPTURE(host);
    const auto response = client->send({.url = "http://" + host + "/s3cret?s3cret=s3cret"});
    REQUIRE_FALSE(response.has_value());
    CHECK_FALSE(response.error().retryable);
    CHECK(response.error().message.find("alerts.allow_private_targets") != std::string::npos);
    CHECK(response.error().message.find("s3cret") == std::string::npos);
  }
}

TEST_CASE("only whole http and https URLs are targets") {
  const auto client = make_http_client({.allow_private = true});
  for (const std::string url :
       {"", "s3cret", "ftp://host/s3cret", "file:///etc/passwd", "gopher://s3cret", "http://",
        "javascript:s3cret", "http:s3cret path", "https://h\r\nX: s3cret/", "//host/s3cret"}) {
    CAPTURE(url);
    const auto response = client->send({.url = url});
    REQUIRE_FALSE(response.has_value());
    CHECK_FALSE(response.error().retryable);
    CHECK(response.error().message.find("s3cret") == std::string::npos);
  }
  const auto target = parse_target("HTTPS://user:s3cret@Hooks.Example/T0?x#y");
  REQUIRE(target.has_value());
  CHECK(target->shown == "https://hooks.example");
  CHECK(target->authority == "https://hooks.example:443");
  CHECK(parse_target("http://h:8080")->authority == "http://h:8080");
}

TEST_CASE("a header cannot hold another one") {
  const auto client = make_http_client({.allow_private = true});
  for (const HttpHeader& header : {HttpHeader{"X", "a\r\nY: b"}, HttpHeader{"X\n", "a"}, HttpHeader{"", "a"},
                                   HttpHeader{"X", std::string("a\0b", 3)}, HttpHeader{"X: y", "a"}}) {
    const auto response = client->send({.url = "http://127.0.0.1:9/", .headers = {header}});
    REQUIRE_FALSE(response.has_value());
    CHECK(response.error().message == "http://127.0.0.1: a header of the request is malformed");
  }
}

TEST_CASE("a connection that is refused may succeed later") {
  const auto client = make_http_client({.allow_private = true});
  const auto response = client->send({.url = "http://127.0.0.1:9/s3cret"});
  REQUIRE_FALSE(response.has_value());
  CHECK(response.error().retryable);
  CHECK(response.error().message == "http://127.0.0.1: Couldn't connect to server");
}

}  // namespace
}  // namespace kavach::http
