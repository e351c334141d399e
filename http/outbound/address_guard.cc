#include "http/outbound/address_guard.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <iterator>

namespace kavach::http {
namespace {

struct Block4 {
  std::uint32_t network;
  int bits;
};

constexpr std::uint32_t ip4(std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) {
  return a << 24 | b << 16 | c << 8 | d;
}

// IANA's registry of special-purpose IPv4 addresses, and multicast.
constexpr Block4 kSpecial4[] = {
    {ip4(0, 0, 0, 0), 8},       // this network
    {ip4(10, 0, 0, 0), 8},      // private
    {ip4(100, 64, 0, 0), 10},   // shared (CGNAT)
    {ip4(127, 0, 0, 0), 8},     // loopback
    {ip4(169, 254, 0, 0), 16},  // link-local: clouds answer with credentials there
    {ip4(172, 16, 0, 0), 12},   // private
    {ip4(192, 0, 0, 0), 24},    // IETF protocols
    {ip4(192, 0, 2, 0), 24},    // documentation
    {ip4(192, 88, 99, 0), 24},  // 6to4 relays
    {ip4(192, 168, 0, 0), 16},  // private
    {ip4(198, 18, 0, 0), 15},   // benchmarks
    {ip4(198, 51, 100, 0), 24}, {ip4(203, 0, 113, 0), 24},  // documentation
    {ip4(224, 0, 0, 0), 4},                                 // multicast
    {ip4(240, 0, 0, 0), 4},                                 // reserved, broadcast
};

bool is_public4(std::uint32_t address) {
  return std::none_of(std::begin(kSpecial4), std::end(kSpecial4), [address](const Block4& block) {
    return (address ^ block.network) >> (32 - block.bits) == 0;
  });
}

using Bytes6 = std::array<std::uint8_t, 16>;

struct Block6 {
  Bytes6 network;
  std::size_t bits;
};

bool is_in(const Bytes6& address, const Block6& block) {
  for (std::size_t bit = 0; bit < block.bits; ++bit) {
    const auto mask = static_cast<std::uint8_t>(0x80U >> bit % 8);
    if (((address[bit / 8] ^ block.network[bit / 8]) & mask) != 0) return false;
  }
  return true;
}

constexpr Block6 kMapped{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 96};
constexpr Block6 kNat64{{0, 0x64, 0xff, 0x9b}, 96};
constexpr Block6 kGlobal{{0x20}, 3};
constexpr Block6 kSpecialGlobal[] = {
    {{0x20, 0x01}, 23},              // IETF protocols: Teredo, ORCHID, benchmarks
    {{0x20, 0x01, 0x0d, 0xb8}, 32},  // documentation
    {{0x20, 0x02}, 16},              // 6to4
    {{0x3f, 0xff}, 20},              // documentation
};

bool is_public6(const Bytes6& address) {
  if (is_in(address, kMapped) || is_in(address, kNat64))
    return is_public4(ip4(address[12], address[13], address[14], address[15]));
  return is_in(address, kGlobal) &&
         std::none_of(std::begin(kSpecialGlobal), std::end(kSpecialGlobal),
                      [&address](const Block6& block) { return is_in(address, block); });
}

}  // namespace

bool is_public_address(const sockaddr& address) noexcept {
  if (address.sa_family == AF_INET) {
    sockaddr_in known{};
    std::memcpy(&known, &address, sizeof(known));
    return is_public4(ntohl(known.sin_addr.s_addr));
  }
  if (address.sa_family == AF_INET6) {
    sockaddr_in6 known{};
    std::memcpy(&known, &address, sizeof(known));
    Bytes6 bytes{};
    std::memcpy(bytes.data(), &known.sin6_addr, bytes.size());
    return is_public6(bytes);
  }
  return false;
}

}  // namespace kavach::http
