#include "http/transport/connection.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/beast/http/error.hpp>
#include <cstring>
#include <utility>

#include "engine/bounds.h"
#include "engine/check.h"
#include "http/transport/render.h"

namespace kavach::http {
namespace {

using HttpError = boost::beast::http::error;

// Requests of one connection that are handled before others get their turn.
constexpr int kRequestsPerTurn = 32;
// Requests in a row that prefer one other shard before a connection goes there. One that carries the requests
// of many organizations, as a load balancer's may, stays where it is.
constexpr std::uint32_t kRequestsBeforeMove = 16;
// What is read and thrown away behind an answer that ends the connection, so that the peer can read the
// answer before it sees a reset (RFC 9112 9.6).
constexpr std::uint64_t kLingerBytesMax = std::uint64_t{64} << 20;

constexpr std::string_view kBareLineFeed = "Malformed HTTP request: line feed without carriage return";

// Large buffers come in steps, so that they fit bodies of about the same size.
std::size_t whole_steps(std::size_t bytes) {
  return (bytes + kBufferBytes - 1) / kBufferBytes * kBufferBytes;
}

bool is_token_char(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

// A line feed without its carriage return; our header search would wait for ever for such a header's end.
bool has_bare_line_feed(std::string_view header, std::size_t from) {
  for (std::size_t i = header.find('\n', from); i != std::string_view::npos; i = header.find('\n', i + 1)) {
    if (i == 0 || header[i - 1] != '\r') return true;
  }
  return false;
}

}  // namespace

Connection::Connection(Server& server, TcpSocket socket)
    : server_(server), socket_(std::move(socket), server.options_.tls) {}

Connection::Connection(Server& server, Socket::Detached socket)
    : server_(server), socket_(server.shard_.io(), std::move(socket)) {}

Connection::~Connection() {
  refund_memory();
}

void Connection::start() {
  server_.set_wait(*this, Server::Wait::kIdle);
  arm(true);
}

void Connection::drain() {
  keep_alive_ = false;
  // A request that has begun is still answered.
  if (phase_ == Phase::kIdle) close_if_drained();
  end_of_entry();
}

void Connection::expire() {
  server_.metrics_.timeouts.add();
  switch (wait_) {
    case Server::Wait::kHeader:
    case Server::Wait::kBody:
      refuse(408, "Request timeout");
      break;
    case Server::Wait::kIdle:
      close(false);
      break;
    case Server::Wait::kWrite:
    case Server::Wait::kLinger:
    case Server::Wait::kNone:
      close(true);
      break;
  }
  end_of_entry();
}

void Connection::close_now() {
  close(true);
  end_of_entry();
}

void Connection::on_ready() {
  wait_pending_ = false;
  if (!closed_) {
    switch (phase_) {
      case Phase::kIdle:
      case Phase::kHeader:
      case Phase::kBody:
      case Phase::kChunks:
        read_more();
        break;
      case Phase::kWriting:
        write_output();
        if (!closed_ && phase_ == Phase::kIdle) process();
        break;
      case Phase::kLingering:
        discard_input();
        break;
      case Phase::kHandling:
        break;
    }
  }
  end_of_entry();
}

void Connection::end_of_entry() {
  if (closed_ && !wait_pending_ && phase_ != Phase::kHandling && !in_handle_) server_.destroy(*this);
}

void Connection::arm(bool for_read) {
  if (closed_ || wait_pending_) return;
  wait_pending_ = true;
  socket_.wait(for_read, [this](const boost::system::error_code&) { on_ready(); });
}

void Connection::arm_for_input() {
  if (!socket_.has_buffered_input()) return arm(true);
  // TLS has decrypted more than the last read took, and no event will tell.
  if (closed_ || wait_pending_) return;
  wait_pending_ = true;
  boost::asio::post(server_.shard_.io(), [this] { on_ready(); });
}

void Connection::continue_later() {
  if (closed_ || wait_pending_) return;
  wait_pending_ = true;
  boost::asio::post(server_.shard_.io(), [this] {
    wait_pending_ = false;
    if (!closed_) process();
    end_of_entry();
  });
}

std::string_view Connection::unread() const noexcept {
  return state_ == nullptr ? std::string_view{} : state_->buffer.view().substr(begin_);
}

void Connection::read_more() {
  if (state_ == nullptr) state_.reset(server_.take_read_state());
  PaddedBuffer& buffer = state_->buffer;
  if (buffer.capacity() == 0) buffer = server_.buffers_.take();
  if (buffer.size() == buffer.capacity()) {
    const std::size_t end = header_end_ - begin_ + body_bytes_;
    if (!make_room(phase_ == Phase::kBody ? end : buffer.capacity() * 2)) return;
  }
  const Socket::Moved moved = socket_.read(buffer.data() + buffer.size(), buffer.capacity() - buffer.size());
  switch (moved.outcome) {
    case Socket::Outcome::kDone:
      buffer.resize(buffer.size() + moved.bytes);
      server_.metrics_.bytes_in.add(moved.bytes);
      process();
      break;
    case Socket::Outcome::kWouldRead:
    case Socket::Outcome::kWouldWrite:
      if (phase_ == Phase::kIdle && unread().empty()) {
        server_.give_read_state(state_.release());
        close_if_drained();
      }
      arm(moved.outcome == Socket::Outcome::kWouldRead);
      break;
    case Socket::Outcome::kEnd:
    case Socket::Outcome::kBroken:
      close(false);
      break;
  }
}

void Connection::process() {
  for (int handled = 0; !closed_; ++handled) {
    if (handled == kRequestsPerTurn * 2) return continue_later();
    bool goes_on = false;
    switch (phase_) {
      case Phase::kIdle:
      case Phase::kHeader:
        goes_on = step_header();
        break;
      case Phase::kBody:
        goes_on = step_body();
        break;
      case Phase::kChunks:
        goes_on = step_chunks();
        break;
      case Phase::kHandling:
      case Phase::kWriting:
      case Phase::kLingering:
        return;
    }
    if (!goes_on) return;
  }
}

bool Connection::await_bytes(Phase phase) {
  phase_ = phase;
  // The patience runs from the phase's beginning: a byte now and then does not renew it.
  const Server::Wait wait = phase == Phase::kHeader ? Server::Wait::kHeader : Server::Wait::kBody;
  if (wait_ != wait) server_.set_wait(*this, wait);
  arm_for_input();
  return false;
}

void Connection::become_idle() {
  phase_ = Phase::kIdle;
  begin_ = 0;
  if (state_ != nullptr) server_.give_read_state(state_.release());
  refund_memory();
  server_.set_wait(*this, Server::Wait::kIdle);
  close_if_drained();
  if (!moves_to_preferred()) arm_for_input();
}

// True: another shard has it, and what is left here goes with end_of_entry().
bool Connection::moves_to_preferred() {
  if (preferring_requests_ < kRequestsBeforeMove || closed_ || wait_pending_) return false;
  if (socket_.has_buffered_input() || !server_.take_place_at(preferred_shard_)) return false;
  server_.hand_over(socket_.detach(), preferred_shard_);
  closed_ = true;
  return true;
}

void Connection::close_if_drained() {
  if (server_.draining() && !socket_.has_input()) close(false);
}

bool Connection::step_header() {
  // Empty lines before a request are skipped (RFC 9112 2.2).
  while (unread().starts_with("\r\n")) begin_ += 2;
  const std::string_view bytes = unread();
  if (bytes.empty()) {
    become_idle();
    return false;
  }
  const std::size_t header_max = server_.options_.limits.header_bytes_max;
  const std::size_t end = bytes.find("\r\n\r\n", scanned_);
  const std::size_t header_bytes = end == std::string_view::npos ? 0 : end + 4;
  const bool too_large = header_bytes > header_max || (header_bytes == 0 && bytes.size() >= header_max);
  if (header_bytes == 0 || too_large) {
    // What is wrong already is said at once, and is the same whether or not more has come.
    const std::string_view begun = bytes.substr(0, header_max);
    if (!is_token_char(begun.front()) && begun.front() != '\r') {
      refuse(400, "Malformed HTTP request");
    } else if (has_bare_line_feed(begun, scanned_)) {
      refuse(400, kBareLineFeed);
    } else if (too_large) {
      refuse(431, "Request header fields too large");
    } else {
      scanned_ = bytes.size() > 3 ? bytes.size() - 3 : 0;
      await_bytes(Phase::kHeader);
    }
    return false;
  }
  scanned_ = 0;
  request_ = Request{};
  RequestParser& parser =
      state_->parser.emplace(request_, state_->chunked, static_cast<std::uint32_t>(header_max),
                             server_.options_.limits.body_bytes_max);
  RequestParser::Error error;
  parser.parse_header(bytes.substr(0, header_bytes), error);
  http10_ = parser.is_http10();
  is_head_ = request_.method == Method::kHead;
  if (error) {
    if (has_bare_line_feed(bytes.substr(0, header_bytes), 0)) {
      refuse(400, kBareLineFeed);
    } else if (parser.has_unknown_coding()) {
      refuse(501, "Transfer-Encoding is not supported");
    } else if (parser.has_bad_host()) {
      refuse(400, "Malformed HTTP request: no Host, several, or a bad one");
    } else if (error == HttpError::bad_version && parser.has_other_version()) {
      refuse(505, "HTTP version not supported");
    } else {
      refuse(400, "Malformed HTTP request: " + error.message());
    }
    return false;
  }
  keep_alive_ = parser.keep_alive();
  return start_body(header_bytes);
}

bool Connection::start_body(std::size_t header_bytes) {
  const RequestParser& parser = *state_->parser;
  header_end_ = begin_ + header_bytes;
  body_bytes_ = parser.declared_length();
  const bool chunked = parser.chunked();
  const bool too_large = !chunked && body_bytes_ > server_.options_.limits.body_bytes_max;
  const std::size_t arrived = state_->buffer.size() - header_end_;
  const bool asks_first = parser.expects_continue() && !http10_ && (chunked || arrived < body_bytes_);
  const bool is_large = !chunked && header_bytes + body_bytes_ > state_->buffer.capacity();
  may_be_large_ = false;
  if (too_large || asks_first || is_large) {
    if (refuses_early()) return false;
    if (too_large) {
      refuse(413, "Request body too large");
      return false;
    }
    if (asks_first) {
      constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      const Socket::Moved moved = socket_.write(kContinue.data(), kContinue.size());
      if (moved.outcome != Socket::Outcome::kDone || moved.bytes != kContinue.size()) {
        close(true);  // a peer that takes not even this will not take an answer
        return false;
      }
    }
  }
  phase_ = chunked ? Phase::kChunks : Phase::kBody;
  return true;
}

// Before a body takes more memory than a recycled buffer: is there an answer that does not need it?
bool Connection::refuses_early() {
  may_be_large_ = true;
  const auto refusal = server_.handler_.refuse_early(request_);
  if (!refusal) return false;
  must_linger_ = true;
  keep_alive_ = false;
  send(*refusal);
  return true;
}

bool Connection::step_body() {
  const std::size_t end = header_end_ + body_bytes_;
  const PaddedBuffer& buffer = state_->buffer;
  if (buffer.size() >= end) return dispatch(buffer.view().substr(header_end_, body_bytes_), end);
  return await_bytes(Phase::kBody);
}

bool Connection::step_chunks() {
  PaddedBuffer& buffer = state_->buffer;
  RequestParser& parser = *state_->parser;
  RequestParser::Error error;
  header_end_ += parser.parse_chunks(buffer.view().substr(header_end_), error);
  if (error == HttpError::body_limit) {
    refuse(413, "Request body too large");
    return false;
  }
  if (error == HttpError::header_limit) {
    refuse(400, "Malformed HTTP request: chunk framing too long");
    return false;
  }
  if (error) {
    refuse(400, "Malformed HTTP request: " + error.message());
    return false;
  }
  if (!may_be_large_ && state_->chunked.capacity() > kBufferBytes && refuses_early()) return false;
  if (!charge_memory()) return false;
  if (parser.is_done()) return dispatch(state_->chunked.view(), header_end_);
  // What is left is framing. Beast would wait for the line's right end.
  if (has_bare_line_feed(buffer.view().substr(header_end_), 0)) {
    refuse(400, kBareLineFeed);
    return false;
  }
  // That of one chunk, or the trailer, must fit where a header would.
  if (buffer.size() - header_end_ > server_.options_.limits.header_bytes_max) {
    refuse(400, "Malformed HTTP request: chunk framing too long");
    return false;
  }
  // What was parsed makes room; the header before it stays where its views point.
  const std::size_t header_bytes = state_->parser->header_bytes();
  const std::size_t rest = buffer.size() - header_end_;
  std::memmove(buffer.data() + begin_ + header_bytes, buffer.data() + header_end_, rest);
  header_end_ = begin_ + header_bytes;
  buffer.resize(header_end_ + rest);
  return await_bytes(Phase::kChunks);
}

bool Connection::dispatch(std::string_view body, std::size_t end) {
  request_.body = body;
  end_ = end;
  phase_ = Phase::kHandling;
  answered_ = false;
  server_.set_wait(*this, Server::Wait::kNone);
  server_.metrics_.requests.add();
  in_handle_ = true;
  server_.handler_.handle(*this);
  in_handle_ = false;
  return answered_ && phase_ == Phase::kIdle;
}

// --- room and memory ---------------------------------------------------------------------------------------

void Connection::rebase_views(const char* from, const char* to) {
  for (std::string_view* view :
       {&request_.path, &request_.query, &request_.authorization, &request_.api_key, &request_.content_type,
        &request_.content_encoding, &request_.if_none_match, &request_.stripe_signature, &request_.origin,
        &request_.forwarded_for, &request_.preflight_method}) {
    // The path of a target without one is a literal.
    if (view->data() < from || view->data() > from + state_->buffer.size()) continue;
    *view = std::string_view(to + (view->data() - from), view->size());
  }
}

void Connection::move_request_to_front() {
  if (begin_ == 0) return;
  PaddedBuffer& buffer = state_->buffer;
  if (phase_ != Phase::kIdle && phase_ != Phase::kHeader) rebase_views(buffer.data() + begin_, buffer.data());
  header_end_ -= std::min(header_end_, begin_);
  buffer.consume(begin_);
  begin_ = 0;
}

// Makes room for more of the current request, which is `bytes_needed` long with what is still to come. False:
// refused for lack of memory.
bool Connection::make_room(std::size_t bytes_needed) {
  move_request_to_front();
  PaddedBuffer& buffer = state_->buffer;
  if (bytes_needed <= buffer.capacity()) return true;
  const bool has_views = phase_ != Phase::kIdle && phase_ != Phase::kHeader;
  // What is there already costs nothing. New memory grows with what has arrived, not with what was announced.
  PaddedBuffer grown = server_.buffers_.take_large(bytes_needed);
  if (grown.capacity() == 0) grown.reserve(std::min(whole_steps(bytes_needed), buffer.capacity() * 4));
  grown.append(buffer.view());
  if (has_views) rebase_views(buffer.data(), grown.data());
  buffer.swap(grown);
  server_.buffers_.give(std::move(grown));
  return charge_memory();
}

bool Connection::charge_memory() {
  const auto beyond_pool = [](const PaddedBuffer& buffer) -> std::uint64_t {
    return buffer.capacity() > kBufferBytes ? buffer.capacity() : 0;
  };
  const std::uint64_t held = beyond_pool(state_->buffer) + beyond_pool(state_->chunked);
  if (held <= memory_charged_) return true;
  server_.body_memory_ += held - memory_charged_;
  memory_charged_ = held;
  if (server_.body_memory_ <= server_.options_.body_memory_max) return true;
  refuse_busy();
  return false;
}

void Connection::refund_memory() {
  server_.body_memory_ -= memory_charged_;
  memory_charged_ = 0;
}

// --- what the handler may do with its request --------------------------------------------------------------

void Connection::prefer_shard(std::uint32_t shard) {
  if (shard != preferred_shard_) preferring_requests_ = 0;
  preferred_shard_ = shard;
  if (shard != server_.shard_.id()) ++preferring_requests_;
}

std::string Connection::peer() const {
  return socket_.peer();
}

void Connection::release_body() {
  if (state_ == nullptr || state_->buffer.size() > end_) return;  // the next request is in there
  server_.give_read_state(state_.release());
  begin_ = end_ = 0;
  refund_memory();
}

PaddedBuffer Connection::take_body() {
  PaddedBuffer taken;
  if (request_.body.data() == state_->chunked.data()) {
    taken.swap(state_->chunked);
    return taken;
  }
  taken.swap(state_->buffer);
  const std::string_view rest = taken.view().substr(end_);
  if (!rest.empty()) {
    state_->buffer = server_.buffers_.take();
    state_->buffer.append(rest);
  }
  begin_ = end_ = 0;
  return taken;
}

void Connection::give_back(PaddedBuffer buffer) {
  server_.buffers_.give(std::move(buffer));
}

void Connection::answer(const Response& response) {
  KAVACH_DCHECK(phase_ == Phase::kHandling && !answered_, "a request is answered once");
  answered_ = true;
  send(response);
  if (in_handle_) return;  // dispatch() goes on
  if (!closed_ && phase_ == Phase::kIdle) process();
  end_of_entry();
}

// --- answers -----------------------------------------------------------------------------------------------

void Connection::refuse(int status, std::string_view detail) {
  server_.metrics_.protocol_errors.add();
  keep_alive_ = false;
  must_linger_ = true;
  const std::string body = error_body(detail);
  send(Response{.status = status, .body = body});
}

void Connection::refuse_busy() {
  keep_alive_ = false;
  must_linger_ = true;
  send(kBusy);
}

void Connection::send(const Response& response) {
  if (response.close || server_.draining()) keep_alive_ = false;
  phase_ = Phase::kWriting;
  if (closed_) return after_answer();
  server_.metrics_.answers[static_cast<std::size_t>(response.status / 100)].add();
  std::string& text = server_.scratch_;
  render_response(response, {.keep_alive = keep_alive_, .http10 = http10_, .head = is_head_}, server_.date(),
                  text);
  std::size_t sent = 0;
  while (sent < text.size()) {
    const Socket::Moved moved = socket_.write(text.data() + sent, text.size() - sent);
    if (moved.outcome == Socket::Outcome::kDone) {
      sent += moved.bytes;
      continue;
    }
    if (moved.outcome == Socket::Outcome::kBroken || moved.outcome == Socket::Outcome::kEnd) {
      close(true);
      return after_answer();
    }
    output_.assign(text, sent);
    output_sent_ = 0;
    if (text.capacity() > kBufferBytes) std::string().swap(text);
    server_.metrics_.bytes_out.add(sent);
    server_.set_wait(*this, Server::Wait::kWrite);
    return arm(moved.outcome == Socket::Outcome::kWouldRead);
  }
  server_.metrics_.bytes_out.add(sent);
  if (text.capacity() > kBufferBytes) std::string().swap(text);  // one large answer does not stay in memory
  after_answer();
}

void Connection::write_output() {
  while (output_sent_ < output_.size()) {
    const Socket::Moved moved = socket_.write(output_.data() + output_sent_, output_.size() - output_sent_);
    if (moved.outcome == Socket::Outcome::kWouldWrite || moved.outcome == Socket::Outcome::kWouldRead) {
      return arm(moved.outcome == Socket::Outcome::kWouldRead);
    }
    if (moved.outcome != Socket::Outcome::kDone) return close(true);
    output_sent_ += moved.bytes;
    server_.metrics_.bytes_out.add(moved.bytes);
  }
  std::string().swap(output_);
  after_answer();
}

void Connection::after_answer() {
  phase_ = Phase::kIdle;
  // Whatever comes next may have to be refused before it is parsed.
  is_head_ = http10_ = false;
  if (closed_) return;
  if (!keep_alive_) {
    // While draining it is this side that ends the connection, and the peer may be about to send its next
    // request.
    if (must_linger_ || server_.draining()) return linger();
    return close(false);
  }
  if (state_ != nullptr) {
    begin_ = std::min(end_, state_->buffer.size());
    state_->chunked = PaddedBuffer();
    state_->parser.reset();
  }
  refund_memory();
  // process() goes on with what was pipelined, or becomes idle.
}

void Connection::linger() {
  phase_ = Phase::kLingering;
  socket_.shutdown_send();
  if (state_ != nullptr) server_.give_read_state(state_.release());
  refund_memory();
  server_.set_wait(*this, Server::Wait::kLinger);
  arm(true);
}

void Connection::discard_input() {
  char sink[16 << 10];
  for (;;) {
    const Socket::Moved moved = socket_.read(sink, sizeof(sink));
    if (moved.outcome == Socket::Outcome::kWouldRead || moved.outcome == Socket::Outcome::kWouldWrite) {
      return arm(moved.outcome == Socket::Outcome::kWouldRead);
    }
    lingered_bytes_ += moved.bytes;
    if (moved.outcome != Socket::Outcome::kDone || lingered_bytes_ > kLingerBytesMax) return close(false);
  }
}

void Connection::close(bool reset) {
  if (closed_) return;
  closed_ = true;
  server_.set_wait(*this, Server::Wait::kNone);
  socket_.close(reset);
}

}  // namespace kavach::http
