#include "quota/redis/url.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>
#include <optional>

#include "quota/redis/reply.h"

namespace kavach::quota {
namespace {

// An ordinary sun_path, with its NUL.
constexpr std::size_t kSocketPathMax = 107;

std::optional<int> hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return std::nullopt;
}

std::optional<std::string> percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    if (i + 2 >= text.size()) return std::nullopt;
    const auto high = hex_digit(text[i + 1]);
    const auto low = hex_digit(text[i + 2]);
    if (!high || !low) return std::nullopt;
    out.push_back(static_cast<char>(*high * 16 + *low));
    i += 2;
  }
  if (out.find('\0') != std::string::npos) return std::nullopt;
  return out;
}

template <typename Number>
bool parse_number(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

Failure bad(std::string_view why) {
  return failure(fmt::format("redis.url: {}", why));
}

// `host`, `host:port`, `[::1]:port`.
Status read_host(std::string_view text, RedisUrl& url) {
  std::string_view port;
  if (text.starts_with('[')) {
    const std::size_t end = text.find(']');
    if (end == std::string_view::npos) return bad("the bracket of an IPv6 address is not closed");
    url.host = text.substr(1, end - 1);
    port = text.substr(end + 1);
    if (!port.empty() && !port.starts_with(':')) return bad("only :port may follow an IPv6 address");
  } else {
    const std::size_t colon = text.find(':');
    url.host = text.substr(0, colon);
    if (colon != std::string_view::npos) port = text.substr(colon);
  }
  if (url.host.empty()) return bad("a host is missing");
  if (port.empty()) return {};
  if (!parse_number(port.substr(1), url.port) || url.port == 0) return bad("the port is not 1..65535");
  return {};
}

}  // namespace

Result<RedisUrl> RedisUrl::parse(std::string_view text) {
  RedisUrl url;
  bool is_unix = false;
  if (text.starts_with("redis://")) {
    text.remove_prefix(8);
  } else if (text.starts_with("rediss://")) {
    text.remove_prefix(9);
    url.tls = true;
  } else if (text.starts_with("unix://")) {
    text.remove_prefix(7);
    is_unix = true;
  } else {
    return bad("must begin with redis://, rediss:// or unix://");
  }

  const std::size_t slash = text.find('/');
  std::string_view authority = text.substr(0, slash);
  std::string_view rest = slash == std::string_view::npos ? std::string_view() : text.substr(slash);
  if (const std::size_t at = authority.rfind('@'); at != std::string_view::npos) {
    const std::string_view who = authority.substr(0, at);
    authority.remove_prefix(at + 1);
    const std::size_t colon = who.find(':');
    if (colon == std::string_view::npos)
      return bad("user:password@ needs a colon; without a user, :password@");
    const auto user = percent_decoded(who.substr(0, colon));
    const auto password = percent_decoded(who.substr(colon + 1));
    if (!user || !password) return bad("user or password has a % that no two hex digits follow");
    if (password->empty()) return bad("the password is empty");
    url.user = *user;
    url.password = *password;
  } else if (rest.find('@') != std::string_view::npos && !is_unix) {
    return bad("a / or @ in user or password is written %2F or %40");
  }

  std::string_view db;
  if (is_unix) {
    if (!authority.empty()) return bad("a socket's path begins with /: unix:///run/redis.sock");
    const std::size_t question = rest.find('?');
    const auto path = percent_decoded(rest.substr(0, question));
    if (!path || path->empty()) return bad("the socket's path is missing");
    if (path->size() > kSocketPathMax) return bad("the socket's path is too long");
    url.path = *path;
    if (question != std::string_view::npos) {
      db = rest.substr(question + 1);
      if (!db.starts_with("db=")) return bad("only ?db=n may follow a socket's path");
      db.remove_prefix(3);
      if (db.empty()) return bad("the database's number is missing");
    }
  } else {
    if (const Status host = read_host(authority, url); !host) return host.error();
    if (rest.size() > 1) db = rest.substr(1);
  }
  if (!db.empty() && !parse_number(db, url.db)) return bad("the database is no number");
  return url;
}

std::string RedisUrl::shown() const {
  const std::string_view secret = password.empty() ? "" : "***@";
  if (!path.empty()) return fmt::format("unix://{}{}?db={}", secret, path, db);
  const bool is_ipv6 = host.find(':') != std::string::npos;
  return fmt::format("{}://{}{}{}{}:{}/{}", tls ? "rediss" : "redis", secret, is_ipv6 ? "[" : "", host,
                     is_ipv6 ? "]" : "", port, db);
}

std::string RedisUrl::auth_command() const {
  RedisCommand auth;
  auth.add("AUTH");
  if (!user.empty()) auth.add(user);
  return auth.add(password).bytes();
}

}  // namespace kavach::quota
