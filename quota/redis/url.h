// RedisUrl: where the Redis is and who asks, read from one setting.
//
//   redis://[user:password@]host[:port][/db]       plain TCP
//   rediss://[user:password@]host[:port][/db]      TLS
//   unix://[user:password@]/path/of/socket[?db=n]
//
// `:password@` alone is the default user's. User, password and path are percent-decoded; an IPv6 address
// stands in brackets.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/result.h"

namespace kavach::quota {

struct RedisUrl {
  bool tls = false;
  std::string host;  // without brackets; empty for a socket's path
  std::uint16_t port = 6379;
  std::string path;      // of a Unix socket, absolute
  std::string user;      // empty: the default user
  std::string password;  // empty: no AUTH
  std::uint32_t db = 0;

  // The message never holds any part of `text`.
  static Result<RedisUrl> parse(std::string_view text);

  // For logs: `redis://***@host:6379/0`.
  std::string shown() const;
  // AUTH, as bytes for the server. REQUIRES: there is a password.
  std::string auth_command() const;
};

}  // namespace kavach::quota
