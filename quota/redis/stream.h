// RedisStream: one connection's bytes to the server, over TCP, TLS or a Unix socket, without blocking.
//
// Nothing waits here: what cannot go on says which readiness it needs, and wait() asks the reactor for it.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "engine/result.h"
#include "quota/redis/address.h"

struct ssl_st;
struct ssl_ctx_st;

namespace kavach::quota {

// Whom a TLS client trusts. Immutable; shared by the connections of all shards.
class RedisTls {
 public:
  // `ca_file` empty: the system's certificates. Reads files; at start.
  static Result<std::shared_ptr<const RedisTls>> load(const std::string& ca_file);
  ~RedisTls();
  RedisTls(const RedisTls&) = delete;
  RedisTls& operator=(const RedisTls&) = delete;
  ssl_ctx_st* native() const noexcept { return context_; }

 private:
  explicit RedisTls(ssl_ctx_st* context) : context_(context) {}
  ssl_ctx_st* context_;
};

// Own thread of the shard.
class RedisStream {
 public:
  enum class Outcome : std::uint8_t {
    kDone,
    kWouldRead,   // wait until readable, then call again
    kWouldWrite,  // wait until writable, then call again
    kEnd,         // the server has closed
    kBroken,      // reason() says why
  };
  struct Moved {
    Outcome outcome;
    std::size_t bytes = 0;
  };

  explicit RedisStream(boost::asio::io_context& io) : descriptor_(io.get_executor()) {}
  ~RedisStream();
  RedisStream(const RedisStream&) = delete;
  RedisStream& operator=(const RedisStream&) = delete;

  // Begins. With `tls` the server must prove to be `server_name` (a host name or an IP address).
  // REQUIRES: once, first.
  Outcome connect(const RedisAddress& address, const std::shared_ptr<const RedisTls>& tls,
                  const std::string& server_name);
  // Goes on, until kDone: connected, and TLS agreed.
  Outcome finish_connect();

  Moved read(char* to, std::size_t size);
  Moved write(const char* from, std::size_t size);
  const std::string& reason() const noexcept { return reason_; }

  template <typename Handler>
  void wait(bool for_read, Handler&& handler) {
    descriptor_.async_wait(for_read ? Descriptor::wait_read : Descriptor::wait_write,
                           std::forward<Handler>(handler));
  }

 private:
  using Descriptor = boost::asio::posix::basic_stream_descriptor<boost::asio::io_context::executor_type>;
  Moved tls_outcome(int result);
  Moved broken(int error);

  Descriptor descriptor_;
  std::shared_ptr<const RedisTls> tls_;
  ssl_st* ssl_ = nullptr;
  bool connected_ = false;  // the socket itself
  std::string reason_;
};

}  // namespace kavach::quota
