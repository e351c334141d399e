#include "quota/redis/address.h"

#include <netdb.h>
#include <sys/un.h>

#include <cstring>

#include "engine/check.h"

namespace kavach::quota {

RedisAddresses look_up_addresses(const std::string& host, std::uint16_t port, int flags) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* first = nullptr;
  RedisAddresses result;
  const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &first);
  if (error != 0) {
    result.problem = ::gai_strerror(error);
    return result;
  }
  for (const addrinfo* one = first; one != nullptr; one = one->ai_next) {
    RedisAddress address;
    std::memcpy(&address.storage, one->ai_addr, one->ai_addrlen);
    address.size = one->ai_addrlen;
    result.found.push_back(address);
  }
  ::freeaddrinfo(first);
  return result;
}

RedisAddress unix_address(const std::string& path) {
  sockaddr_un name{};
  KAVACH_CHECK(path.size() < sizeof(name.sun_path), "a socket's path is too long");
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, path.c_str(), path.size() + 1);
  RedisAddress address;
  std::memcpy(&address.storage, &name, sizeof(name));
  address.size = sizeof(name);
  return address;
}

}  // namespace kavach::quota
