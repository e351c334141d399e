// RedisAddress: where a socket is connected to, and how a host's name or a path becomes one.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <vector>

namespace kavach::quota {

struct RedisAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

struct RedisAddresses {
  std::vector<RedisAddress> found;
  std::string problem;  // why none was found
};

// May block for as long as a name server does, unless `flags` (of getaddrinfo) say AI_NUMERICHOST. Any
// thread.
RedisAddresses look_up_addresses(const std::string& host, std::uint16_t port, int flags = 0);

// REQUIRES: `path` fits into an address (RedisUrl::parse sees to it).
RedisAddress unix_address(const std::string& path);

}  // namespace kavach::quota
