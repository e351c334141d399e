#include "http/control/client_address.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/ip/address.hpp>

#include "http/control/comma_list.h"

namespace kavach::http {
namespace {

namespace ip = boost::asio::ip;

// IPv4 in IPv6's clothes is IPv4: what a socket for both says of its peers.
bool parse_address(std::string_view text, ip::address& address) {
  boost::system::error_code error;
  address = ip::make_address(std::string(text), error);
  if (error) return false;
  if (address.is_v6() && address.to_v6().is_v4_mapped())
    address = ip::make_address_v4(ip::v4_mapped, address.to_v6());
  return true;
}

}  // namespace

Result<TrustedProxies> TrustedProxies::parse(std::string_view list) {
  TrustedProxies parsed;
  for (const std::string_view item : comma_list(list)) {
    boost::system::error_code v4_error, v6_error;
    const bool is_v6 = item.find(':') != std::string_view::npos;
    std::string text(item);
    if (item.find('/') == std::string_view::npos) text += is_v6 ? "/128" : "/32";
    const auto v4 = ip::make_network_v4(text, v4_error);
    const auto v6 = ip::make_network_v6(text, v6_error);
    if (!v4_error) {
      parsed.v4_.push_back(v4);
    } else if (!v6_error) {
      parsed.v6_.push_back(v6);
    } else {
      return Failure{fmt::format(
          "control.trusted_proxies: '{}' is neither an address nor a prefix such as 10.0.0.0/8", item)};
    }
  }
  return parsed;
}

bool TrustedProxies::trust(std::string_view text) const {
  ip::address address;
  if (!parse_address(text, address)) return false;
  if (address.is_v4()) {
    return std::any_of(v4_.begin(), v4_.end(), [&](const ip::network_v4& network) {
      return ip::network_v4(address.to_v4(), network.prefix_length()).network() == network.network();
    });
  }
  return std::any_of(v6_.begin(), v6_.end(), [&](const ip::network_v6& network) {
    return ip::network_v6(address.to_v6(), network.prefix_length()).network() == network.network();
  });
}

std::string TrustedProxies::client(std::string_view peer, std::string_view forwarded) const {
  std::string client(peer);
  std::vector<std::string_view> chain = comma_list(forwarded);
  while (!chain.empty() && trust(client)) {
    ip::address next;
    if (!parse_address(chain.back(), next)) break;
    client = next.to_string();
    chain.pop_back();
  }
  return client;
}

}  // namespace kavach::http
