#include "http/transport/server.h"

#include <sys/socket.h>

#include <utility>

#include "engine/log.h"
#include "http/transport/connection.h"
#include "http/transport/render.h"

namespace kavach::http {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

// Buffers of a shard that are kept for the next request: a few MiB, warm in the cache.
constexpr std::size_t kBuffersKept = 64;
// Of larger ones, while bodies need them: 40 of 1000 events.
constexpr std::size_t kLargeBytesKept = std::size_t{16} << 20;
constexpr MonoMicros kFreeUnusedEvery = kMicrosPerSecond;
// A shard may have an even share of the connections and this part of it more.
constexpr std::int64_t kUnevenShare = 16;
constexpr std::int64_t kLingerTimeout = 2 * kMicrosPerSecond;

using ReusePort = asio::detail::socket_option::boolean<SOL_SOCKET, SO_REUSEPORT>;

Result<tcp::endpoint> endpoint_of(const std::string& address, std::uint16_t port) {
  boost::system::error_code error;
  const auto parsed = asio::ip::make_address(address, error);
  if (error) return failure("http.address: '" + address + "' is no IP address");
  return tcp::endpoint(parsed, port);
}

Failure cannot_listen(const tcp::endpoint& endpoint, const boost::system::error_code& error) {
  return failure("cannot listen on " + endpoint.address().to_string() + ":" +
                 std::to_string(endpoint.port()) + ": " + error.message() +
                 " (settings http.address, http.port)");
}

}  // namespace

void TransportMetrics::add_to(MetricsRegistry& registry, ShardId shard) const {
  const MetricsRegistry::Labels labels{{"shard", std::to_string(shard)}};
  registry.add("kavach_http_connections_accepted_total", "Connections accepted.", accepted, labels);
  registry.add("kavach_http_connections_refused_total", "Connections over http.connections_max.",
               refused_connections, labels);
  registry.add("kavach_http_connections_moved_total",
               "Connections handed to the shard where their requests are decided.", moved_connections,
               labels);
  registry.add("kavach_http_connections", "Connections open.", connections, labels);
  registry.add("kavach_http_requests_total", "Complete requests read.", requests, labels);
  registry.add("kavach_http_received_bytes_total", "Bytes read from peers.", bytes_in, labels);
  registry.add("kavach_http_sent_bytes_total", "Bytes sent to peers.", bytes_out, labels);
  registry.add("kavach_http_protocol_errors_total", "Requests refused by the transport.", protocol_errors,
               labels);
  registry.add("kavach_http_timeouts_total", "Connections whose patience ended.", timeouts, labels);
  for (std::size_t i = 1; i < answers.size(); ++i) {
    auto with_class = labels;
    with_class["class"] = std::to_string(i) + "xx";
    registry.add("kavach_http_answers_total", "Answers by class of status.", answers[i], with_class);
  }
}

Server::Server(Shard& shard, Handler& handler, ServerOptions options,
               std::atomic<std::int64_t>& open_connections)
    : shard_(shard),
      handler_(handler),
      options_(std::move(options)),
      open_connections_(open_connections),
      acceptor_(shard.io().get_executor()),
      buffers_(kBufferBytes, kBuffersKept, kLargeBytesKept) {
  shard_.at_tick([this] { on_tick(); });
}

Server::~Server() {
  for (List& list : lists_) {
    while (list.first != nullptr) destroy(*list.first);
  }
}

Status Server::check_port_is_free(const std::string& address, std::uint16_t port) {
  const auto endpoint = endpoint_of(address, port);
  if (!endpoint) return endpoint.error();
  asio::io_context io;
  Acceptor probe(io.get_executor());
  boost::system::error_code error;
  probe.open(endpoint->protocol(), error);
  if (!error) probe.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) probe.bind(*endpoint, error);
  if (error) return cannot_listen(*endpoint, error);
  return {};
}

Status Server::listen() {
  const auto endpoint = endpoint_of(options_.address, options_.port);
  if (!endpoint) return endpoint.error();
  boost::system::error_code error;
  acceptor_.open(endpoint->protocol(), error);
  if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor_.set_option(ReusePort(true), error);
  if (!error) acceptor_.bind(*endpoint, error);
  if (!error) acceptor_.listen(options_.listen_backlog, error);
  if (!error) acceptor_.non_blocking(true, error);
  if (error) return cannot_listen(*endpoint, error);
  return {};
}

void Server::start() {
  accept();
}

void Server::accept() {
  acceptor_.async_accept([this](const boost::system::error_code& error, TcpSocket socket) {
    if (error == asio::error::operation_aborted) return;
    if (error && draining_) return;
    if (error) {
      // Out of descriptors or memory: the backlog waits until the next tick.
      log::warning("shard {}: cannot accept a connection: {}", shard_.id(), error.message());
      accept_paused_ = true;
      return;
    }
    on_accept(std::move(socket));
    if (!draining_) return accept();
    drain_idle();  // accepted before the drain, and told only now
  });
}

// Closing the acceptor would reset what the kernel has connected and we have not accepted.
void Server::accept_what_waits() {
  for (;;) {
    boost::system::error_code error;
    TcpSocket socket(shard_.io());
    acceptor_.accept(socket, error);
    if (error) return;
    on_accept(std::move(socket));
  }
}

void Server::on_accept(TcpSocket socket) {
  metrics_.accepted.add();
  if (open_connections_.fetch_add(1, std::memory_order_relaxed) >=
      static_cast<std::int64_t>(options_.limits.connections_max)) {
    open_connections_.fetch_sub(1, std::memory_order_relaxed);
    metrics_.refused_connections.add();
    if (options_.tls == nullptr) {
      render_response(kBusy, {.keep_alive = false}, date(), scratch_);
      ::send(socket.native_handle(), scratch_.data(), scratch_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    return;
  }
  places_taken_.fetch_add(1, std::memory_order_relaxed);
  add(new Connection(*this, std::move(socket)));
}

// Owned by the lists from here on; deleted by destroy().
void Server::add(Connection* connection) {
  ++connection_count_;
  metrics_.connections.set(static_cast<std::int64_t>(connection_count_));
  connection->start();
}

// --- connections that move ---------------------------------------------------------------------------------

// Not where there are more connections than elsewhere already: reading and parsing the requests of one large
// organization is for all shards.
bool Server::take_place_at(ShardId shard) noexcept {
  if (draining_ || shard >= peers_.size()) return false;
  const std::int64_t even_share =
      open_connections_.load(std::memory_order_relaxed) / static_cast<std::int64_t>(peers_.size());
  std::atomic<std::int64_t>& taken = peers_[shard]->places_taken_;
  if (taken.fetch_add(1, std::memory_order_relaxed) <= even_share + even_share / kUnevenShare) return true;
  taken.fetch_sub(1, std::memory_order_relaxed);
  return false;
}

// To a place that was taken there.
void Server::hand_over(Socket::Detached socket, ShardId to) {
  metrics_.moved_connections.add();
  // destroy() takes it off the counts here. It stays open on its way, so that a drain waits for it.
  open_connections_.fetch_add(1, std::memory_order_relaxed);
  peers_[to]->shard_.post([peer = peers_[to], moved = std::make_shared<Socket::Detached>(std::move(socket))] {
    peer->take_over(std::move(*moved));
  });
}

void Server::take_over(Socket::Detached socket) {
  auto* connection = new Connection(*this, std::move(socket));
  add(connection);
  if (draining_) connection->drain();
}

// --- waiting -----------------------------------------------------------------------------------------------

void Server::set_wait(Connection& connection, Wait wait) {
  unlink(connection);
  connection.wait_ = wait;
  if (wait != Wait::kNone) connection.deadline_ = shard_.mono_now() + patience(wait);
  List& list = lists_[static_cast<std::size_t>(wait)];
  connection.previous_ = list.last;
  connection.next_ = nullptr;
  (list.last != nullptr ? list.last->next_ : list.first) = &connection;
  list.last = &connection;
}

void Server::unlink(Connection& connection) {
  List& list = lists_[static_cast<std::size_t>(connection.wait_)];
  if (connection.previous_ == nullptr && list.first != &connection) return;  // in no list yet
  (connection.previous_ != nullptr ? connection.previous_->next_ : list.first) = connection.next_;
  (connection.next_ != nullptr ? connection.next_->previous_ : list.last) = connection.previous_;
  connection.previous_ = connection.next_ = nullptr;
}

void Server::destroy(Connection& connection) {
  unlink(connection);
  if (connection.state_ != nullptr) give_read_state(connection.state_.release());
  delete &connection;
  --connection_count_;
  metrics_.connections.set(static_cast<std::int64_t>(connection_count_));
  places_taken_.fetch_sub(1, std::memory_order_relaxed);
  open_connections_.fetch_sub(1, std::memory_order_relaxed);
}

std::int64_t Server::patience(Wait wait) const noexcept {
  switch (wait) {
    case Wait::kIdle:
      return options_.limits.idle_timeout_us;
    case Wait::kHeader:
      return options_.limits.header_timeout_us;
    case Wait::kBody:
      return options_.limits.body_timeout_us;
    case Wait::kWrite:
      return options_.limits.write_timeout_us;
    case Wait::kLinger:
      return kLingerTimeout;
    case Wait::kNone:
      break;
  }
  return 0;
}

// A shorter patience also holds for those who wait already; so the lists stay in order of expiry.
void Server::set_limits(const TransportLimits& limits) {
  options_.limits = limits;
  for (std::size_t i = 0; i < kWaits; ++i) {
    const MonoMicros latest = shard_.mono_now() + patience(static_cast<Wait>(i));
    for (Connection* waits = lists_[i].first; waits != nullptr; waits = waits->next_) {
      waits->deadline_ = std::min(waits->deadline_, latest);
    }
  }
}

void Server::on_tick() {
  const MonoMicros now = shard_.mono_now();
  for (std::size_t i = 0; i < kWaits; ++i) {
    // expire() always moves the connection to another list or ends it.
    while (lists_[i].first != nullptr && lists_[i].first->deadline_ <= now) lists_[i].first->expire();
  }
  if (accept_paused_ && !draining_) {
    accept_paused_ = false;
    accept();
  }
  if (now >= free_unused_at_) {
    buffers_.free_unused();
    free_unused_at_ = now + kFreeUnusedEvery;
  }
}

void Server::drain() {
  if (draining_) return;
  accept_what_waits();
  draining_ = true;
  boost::system::error_code ignored;
  acceptor_.close(ignored);
  drain_idle();
}

void Server::drain_idle() {
  Connection* next = nullptr;
  for (Connection* connection = lists_[static_cast<std::size_t>(Wait::kIdle)].first; connection != nullptr;
       connection = next) {
    next = connection->next_;
    connection->drain();  // may delete it
  }
}

void Server::close_all() {
  for (List& list : lists_) {
    Connection* next = nullptr;
    for (Connection* connection = list.first; connection != nullptr; connection = next) {
      next = connection->next_;
      connection->close_now();
    }
  }
}

ReadState* Server::take_read_state() {
  if (free_states_.empty()) return new ReadState();
  ReadState* state = free_states_.back().release();
  free_states_.pop_back();
  return state;
}

void Server::give_read_state(ReadState* state) {
  std::unique_ptr<ReadState> owned(state);
  buffers_.give(std::move(owned->buffer));
  owned->buffer = PaddedBuffer();
  owned->chunked = PaddedBuffer();
  owned->parser.reset();
  if (free_states_.size() < kBuffersKept) free_states_.push_back(std::move(owned));
}

std::string_view Server::date() {
  const std::int64_t second = shard_.wall_now() / kMicrosPerSecond;
  if (second != date_second_) {
    format_http_date(second, date_text_);
    date_second_ = second;
  }
  return {date_text_, 29};
}

}  // namespace kavach::http
