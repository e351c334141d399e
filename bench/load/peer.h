// Peer: one keep-alive connection of the load generator. Sends what it is given and checks what comes back.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "bench/load/options.h"

namespace kavach::bench {

using Nanos = std::int64_t;
Nanos now_ns() noexcept;

// What was wrong with an answer, or empty.
using Fault = std::string;

// A right answer.
struct Expected {
  std::string status_line;  // how it begins
  std::string body;         // how it begins
  bool may_be_empty;        // the body
};

class Peer {
 public:
  // Connects (the call blocks). `expected` outlives the peer. Throws std::system_error.
  Peer(const LoadOptions& options, const Expected& expected);
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  int fd() const noexcept { return fd_; }
  std::size_t under_way() const noexcept { return started_.size(); }
  bool broken() const noexcept { return broken_; }
  bool wants_to_write() const noexcept { return out_sent_ < out_.size(); }
  // When the oldest request that waits for its answer was due. REQUIRES: under_way() > 0.
  Nanos oldest() const noexcept { return started_.front(); }

  // For the next request's bytes; then started().
  std::string& outgoing() noexcept { return out_; }
  void started(Nanos due) { started_.push_back(due); }
  // Sends what the socket takes now.
  void flush();

  // Reads what has arrived and calls `answered(due, fault)` for each answer in it. When the connection
  // breaks, all requests under way are answered with that fault.
  template <typename Answered>
  void read(Answered&& answered) {
    receive();
    Fault fault;
    while (!started_.empty() && take_answer(fault)) finish_one(answered, fault);
    if (broken_) give_up("connection closed", answered);
  }
  // The connection is of no more use: all requests under way are answered with `fault`.
  template <typename Answered>
  void give_up(const Fault& fault, Answered&& answered) {
    broken_ = true;
    while (!started_.empty()) finish_one(answered, fault);
  }

 private:
  void receive();
  // False: the next answer is not complete.
  bool take_answer(Fault& fault);
  template <typename Answered>
  void finish_one(Answered&& answered, const Fault& fault) {
    const Nanos due = started_.front();
    started_.pop_front();
    answered(due, fault);
  }

  int fd_ = -1;
  const Expected& expected_;
  std::string out_;
  std::size_t out_sent_ = 0;
  std::string in_;
  std::size_t in_taken_ = 0;
  std::deque<Nanos> started_;  // when each request under way was due
  bool broken_ = false;
};

}  // namespace kavach::bench
