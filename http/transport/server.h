// Server: one shard's listener and its connections.
//
// Every shard listens on the same address with SO_REUSEPORT, and the kernel spreads the connections. All
// limits of RFC 9112 traffic are held here: header and body size, time for each phase, number of connections,
// memory for bodies. A connection's states and its bytes: http/transport/connection.h.
#pragma once

#include <array>
#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/bounds.h"
#include "engine/metrics.h"
#include "engine/padded_buffer.h"
#include "engine/result.h"
#include "engine/shard.h"
#include "http/transport/handler.h"
#include "http/transport/socket.h"

namespace kavach::http {

class Connection;
struct ReadState;

// A recycled read buffer: header and body of an ordinary request (100 events are 30 KB) in one piece.
inline constexpr std::size_t kBufferBytes = 64 << 10;
static_assert(kBufferBytes >= bounds::kHeaderBytesMax, "a header is parsed in one buffer");

// What may change while the server runs (SIGHUP).
struct TransportLimits {
  std::uint32_t header_bytes_max = 16 << 10;
  std::uint64_t body_bytes_max = 10 << 20;
  std::int64_t header_timeout_us = 10'000'000;  // from a request's first byte to the end of its header
  std::int64_t body_timeout_us = 30'000'000;    // from there to the end of its body
  std::int64_t write_timeout_us = 30'000'000;   // for a peer to take an answer
  std::int64_t idle_timeout_us = 75'000'000;    // between requests
  std::uint64_t connections_max = 50'000;       // of the whole process
};

struct ServerOptions {
  std::string address = "127.0.0.1";
  std::uint16_t port = 8000;
  int listen_backlog = 1024;
  // Bodies under way of one shard, beyond the buffers that are recycled. At the bound a body is refused with
  // a transient 429, so that many slow large bodies cannot take all memory.
  std::uint64_t body_memory_max = std::uint64_t{1} << 30;
  TransportLimits limits;
  std::shared_ptr<const TlsContext> tls;  // null: plain HTTP
};

struct TransportMetrics {
  Counter accepted, refused_connections, moved_connections, requests, bytes_in, bytes_out, protocol_errors,
      timeouts;
  Gauge connections;
  std::array<Counter, 6> answers;  // by status / 100; 0 is not used
  void add_to(MetricsRegistry& registry, ShardId shard) const;
};

// Own thread of the shard, but for the constructor, listen() and the destructor (before the start, after the
// stop).
class Server {
 public:
  // REQUIRES: shard and handler outlive the server; `open_connections` is shared by the servers of the
  // process.
  Server(Shard& shard, Handler& handler, ServerOptions options, std::atomic<std::int64_t>& open_connections);
  ~Server();

  // The servers of all shards, by shard: idle connections move among them to where their requests are
  // decided. Without peers all stay. Before the start.
  void set_peers(std::vector<Server*> peers) { peers_ = std::move(peers); }

  // Fails when somebody listens there. Shards share a port by SO_REUSEPORT, which would let two processes
  // share it just as silently; port 0 is always free.
  static Status check_port_is_free(const std::string& address, std::uint16_t port);
  // Binds. The failure says which address and why.
  Status listen();
  // Where it listens; with port 0 the kernel has chosen.
  std::uint16_t port() const { return acceptor_.local_endpoint().port(); }
  // Starts accepting.
  void start();

  void set_limits(const TransportLimits& limits);
  // For connections accepted from now on.
  void set_tls(std::shared_ptr<const TlsContext> tls) { options_.tls = std::move(tls); }

  // Stops accepting, ends idle connections; the others end after the answer that they wait for. What had
  // connected or asked by now is served, also if this shard has not come to it yet.
  void drain();
  bool draining() const noexcept { return draining_; }
  std::size_t connection_count() const noexcept { return connection_count_; }
  // Ends what is left after the drain's patience.
  void close_all();

  const TransportMetrics& metrics() const noexcept { return metrics_; }

 private:
  friend class Connection;

  // Connections that wait for the same kind of thing have the same patience, so each list is in order of
  // expiry.
  enum class Wait : std::uint8_t { kIdle, kHeader, kBody, kWrite, kLinger, kNone };
  static constexpr std::size_t kWaits = static_cast<std::size_t>(Wait::kNone);
  using Acceptor =
      boost::asio::basic_socket_acceptor<boost::asio::ip::tcp, boost::asio::io_context::executor_type>;
  struct List {
    Connection* first = nullptr;
    Connection* last = nullptr;
  };

  void accept();
  void accept_what_waits();
  void drain_idle();
  void on_accept(TcpSocket socket);
  void add(Connection* connection);
  bool take_place_at(ShardId shard) noexcept;
  void hand_over(Socket::Detached socket, ShardId to);
  void take_over(Socket::Detached socket);
  void set_wait(Connection& connection, Wait wait);
  void unlink(Connection& connection);
  void destroy(Connection& connection);
  void on_tick();
  std::int64_t patience(Wait wait) const noexcept;
  ReadState* take_read_state();
  void give_read_state(ReadState* state);
  std::string_view date();

  Shard& shard_;
  Handler& handler_;
  ServerOptions options_;
  std::atomic<std::int64_t>& open_connections_;
  std::vector<Server*> peers_;
  Acceptor acceptor_;
  std::array<List, kWaits + 1> lists_{};  // the last one: connections whose handler is at work
  std::size_t connection_count_ = 0;
  std::atomic<std::int64_t> places_taken_{0};  // connections here and on their way here; any thread
  bool draining_ = false;
  bool accept_paused_ = false;
  BufferPool buffers_;
  MonoMicros free_unused_at_ = 0;
  std::vector<std::unique_ptr<ReadState>> free_states_;
  std::uint64_t body_memory_ = 0;
  std::string scratch_;  // answers are rendered here, and copied only if the peer does not take them at once
  std::int64_t date_second_ = -1;
  char date_text_[32] = {};
  TransportMetrics metrics_;
};

}  // namespace kavach::http
