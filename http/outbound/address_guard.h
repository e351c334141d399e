// AddressGuard: which addresses of the network a target of an organization may have.
//
// Asked about the address that is really connected to, so that a name which resolves to something else the
// second time gains nothing. Any thread.
#pragma once

struct sockaddr;

namespace kavach::http {

// True for a global unicast address. False for everything with a meaning inside of a machine or a network:
// private, loopback, link-local, unique-local, shared (CGNAT), multicast, unspecified, reserved, for
// documentation and benchmarks, and IPv6 forms that hold such an IPv4 address (mapped, NAT64) or tunnel to
// any (6to4, Teredo). False for what is no IP address.
bool is_public_address(const sockaddr& address) noexcept;

}  // namespace kavach::http
