// Client address: who a request comes from when a load balancer stands before Kavach.
//
// X-Forwarded-For is believed only from the addresses that the config names: anybody can send the header, and
// tries of passwords are counted by address. Constant after construction; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/ip/network_v4.hpp>
#include <boost/asio/ip/network_v6.hpp>

#include "engine/result.h"

namespace kavach::http {

class TrustedProxies {
 public:
  // A list with commas of addresses and prefixes: `10.0.0.0/8, fd00::/8, 192.0.2.7`. Empty: none.
  static Result<TrustedProxies> parse(std::string_view list);

  // The right-most address of peer and `forwarded` that is no trusted proxy's; of a chain of proxies alone
  // the left-most. What is no address ends the chain.
  std::string client(std::string_view peer, std::string_view forwarded) const;

 private:
  bool trust(std::string_view address) const;

  std::vector<boost::asio::ip::network_v4> v4_;
  std::vector<boost::asio::ip::network_v6> v6_;
};

}  // namespace kavach::http
