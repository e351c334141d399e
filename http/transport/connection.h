// Connection: one peer's requests, one after the other, from bytes to answer.
//
//   idle -> header -> body | chunks -> handling -> writing -> idle
//                                         \-> lingering -> gone      (an answer that ends the connection
//                                         early)
//
// While idle a connection holds a socket and this object, nothing else: buffers and parser come from the
// shard's pool when bytes arrive (ReadState) and go back when the request was handed on. Pipelined requests
// wait in the buffer; they are handled strictly one by one, so answers cannot overtake each other.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "engine/padded_buffer.h"
#include "http/transport/handler.h"
#include "http/transport/request_parser.h"
#include "http/transport/server.h"
#include "http/transport/socket.h"

namespace kavach::http {

// What a request needs while it is read.
struct ReadState {
  PaddedBuffer buffer;   // header, and a body of declared length behind it; then what was pipelined
  PaddedBuffer chunked;  // content of chunks, joined
  std::optional<RequestParser> parser;
};

// Own thread of the shard. Deletes itself (through the server) when it is closed and nothing refers to it.
class Connection final : public Exchange {
 public:
  Connection(Server& server, TcpSocket socket);
  // One that another shard has handed over.
  Connection(Server& server, Socket::Detached socket);
  ~Connection();

  void start();
  // The server drains: an idle connection ends now, another one after its answer. One whose request has
  // arrived and was not read yet is not idle.
  void drain();
  void expire();     // the patience of the current wait is over
  void close_now();  // whatever is under way

  void release_body() override;
  PaddedBuffer take_body() override;
  void give_back(PaddedBuffer buffer) override;
  void prefer_shard(std::uint32_t shard) override;
  std::string peer() const override;
  void answer(const Response& response) override;

 private:
  friend class Server;
  enum class Phase : std::uint8_t { kIdle, kHeader, kBody, kChunks, kHandling, kWriting, kLingering };

  // Entry points: whoever calls one of these from outside calls end_of_entry() last.
  void on_ready();
  void end_of_entry();

  void arm(bool for_read);
  void arm_for_input();
  void continue_later();
  void read_more();
  void process();
  // The steps of process(); each returns false when it waits for more bytes or for an answer.
  bool step_header();
  bool step_body();
  bool step_chunks();
  bool start_body(std::size_t header_bytes);
  bool refuses_early();
  bool dispatch(std::string_view body, std::size_t end);
  bool await_bytes(Phase phase);
  void become_idle();
  void close_if_drained();
  bool moves_to_preferred();

  bool make_room(std::size_t bytes_needed);
  void move_request_to_front();
  void rebase_views(const char* from, const char* to);
  bool charge_memory();
  void refund_memory();

  void refuse(int status, std::string_view detail);
  void refuse_busy();
  void send(const Response& response);
  void write_output();
  void after_answer();
  void linger();
  void discard_input();
  void close(bool reset);

  std::string_view unread() const noexcept;

  Server& server_;
  Socket socket_;
  std::unique_ptr<ReadState> state_;
  std::string output_;  // what the peer has not taken yet
  std::size_t output_sent_ = 0;

  // Offsets into state_->buffer.
  std::size_t begin_ = 0;       // the current request
  std::size_t header_end_ = 0;  // its body, or the chunks not parsed yet
  std::size_t end_ = 0;         // the next request; valid while handling
  std::size_t scanned_ = 0;     // bytes of the header that were searched for its end
  std::uint64_t body_bytes_ = 0;
  std::uint64_t memory_charged_ = 0;
  std::uint64_t lingered_bytes_ = 0;

  // Links of the server's lists.
  Connection* previous_ = nullptr;
  Connection* next_ = nullptr;
  MonoMicros deadline_ = 0;
  // Where the latest requests would rather have been, and how many of them in a row.
  ShardId preferred_shard_ = 0;
  std::uint32_t preferring_requests_ = 0;
  Server::Wait wait_ = Server::Wait::kNone;

  Phase phase_ = Phase::kIdle;
  bool wait_pending_ = false;  // the reactor holds a pointer to this
  bool closed_ = false;
  bool in_handle_ = false;  // handler_.handle() is on the stack
  bool answered_ = false;
  bool keep_alive_ = true;
  bool http10_ = false;
  bool is_head_ = false;
  bool must_linger_ = false;   // the peer may still be sending what we will not read
  bool may_be_large_ = false;  // the handler was asked, and wants this body
};

}  // namespace kavach::http
