// Socket: one accepted connection's bytes, plain or TLS, without blocking.
//
// Reads and writes go straight to the descriptor (or through OpenSSL to it); the reactor is only asked when
// they would block. So a waiting connection needs no buffer of ours, and TLS is the same code as plain.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <cstddef>
#include <memory>
#include <string>

#include "engine/result.h"

struct ssl_st;
struct ssl_ctx_st;

namespace kavach::http {

using TcpSocket =
    boost::asio::basic_stream_socket<boost::asio::ip::tcp, boost::asio::io_context::executor_type>;

// A certificate and its key, ready for connections. Immutable; shared by the shards and by the connections
// that were accepted with it, so that a reload leaves those alone (hence the shared_ptr).
class TlsContext {
 public:
  static Result<std::shared_ptr<const TlsContext>> load(const std::string& certificate_file,
                                                        const std::string& key_file);
  ~TlsContext();
  ssl_ctx_st* native() const noexcept { return context_; }

 private:
  explicit TlsContext(ssl_ctx_st* context) : context_(context) {}
  ssl_ctx_st* context_;
};

// Own thread of the shard.
class Socket {
 public:
  enum class Outcome : std::uint8_t {
    kDone,        // `bytes` were moved
    kWouldRead,   // wait until readable, then call again
    kWouldWrite,  // wait until writable, then call again
    kEnd,         // the peer has finished sending
    kBroken,      // reset, or not TLS
  };
  struct Moved {
    Outcome outcome;
    std::size_t bytes = 0;
  };

  // A connection that no reactor watches, on its way to another shard. Closes it if it never arrives.
  class Detached {
   public:
    Detached(Detached&& other) noexcept;
    Detached& operator=(Detached&&) = delete;
    ~Detached();

   private:
    friend class Socket;
    Detached(boost::asio::ip::tcp protocol, int descriptor, ssl_st* ssl,
             std::shared_ptr<const TlsContext> tls);
    boost::asio::ip::tcp protocol_;
    int descriptor_;
    ssl_st* ssl_;
    std::shared_ptr<const TlsContext> tls_;
  };

  // `tls` may be null. Takes over an accepted socket.
  Socket(TcpSocket socket, const std::shared_ptr<const TlsContext>& tls);
  // Takes over a detached one; when the reactor cannot watch it, read() says kBroken.
  Socket(boost::asio::io_context& io, Detached detached);
  ~Socket();
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  Moved read(char* to, std::size_t size) noexcept;
  Moved write(const char* from, std::size_t size) noexcept;
  // True when read() may yield bytes although the descriptor is not readable (TLS holds decrypted ones).
  bool has_buffered_input() const noexcept;
  // True when bytes have arrived that were not read yet.
  bool has_input() noexcept;
  // The peer's address as text; empty once it is gone.
  std::string peer() const;
  // Takes the connection out of this shard's reactor. Nothing but the destructor may be called afterwards.
  // REQUIRES: nobody waits for it, !has_buffered_input().
  Detached detach() noexcept;
  // Says that nothing more will be sent.
  void shutdown_send() noexcept;
  // `reset` drops what is unsent and tells the peer at once.
  void close(bool reset) noexcept;

  template <typename Handler>
  void wait(bool for_read, Handler&& handler) {
    socket_.async_wait(for_read ? TcpSocket::wait_read : TcpSocket::wait_write,
                       std::forward<Handler>(handler));
  }

 private:
  Moved tls_outcome(int result) noexcept;
  void send_close_notify() noexcept;

  TcpSocket socket_;
  ssl_st* ssl_ = nullptr;
  std::shared_ptr<const TlsContext> tls_;
};

}  // namespace kavach::http
