// Generator: drives all connections from one thread, closed loop or at a fixed rate, and measures a window.
//
//   start | warm-up | measured window | what is still under way is waited for
//
// At a fixed rate a request is due at start + i / rate and is given to the connection that has been free the
// longest; its latency counts from when it was due, whether or not a connection was free then. So a server
// that stalls is charged for every request that should have been sent meanwhile (no coordinated omission).
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bench/load/cpu_time.h"
#include "bench/load/options.h"
#include "bench/load/peer.h"
#include "bench/load/request_source.h"
#include "bench/support/histogram.h"

namespace kavach::bench {

struct LoadReport {
  double window_s = 0;
  std::uint64_t answers = 0;  // right ones that came within the window
  Histogram latency_ns;       // of right answers to requests that were due within the window
  std::map<std::string, std::uint64_t> faults;  // of the whole run, by kind
  bool ran_out = false;                         // of gzip bodies, before the window's end
  std::uint64_t own_cpu_ns = 0;                 // of the generator, within the window
  ProcessTimes server_cpu;                      // of the servers' threads, within the window
};

class Generator {
 public:
  // Renders the bodies and connects. Throws std::system_error.
  explicit Generator(const LoadOptions& options);
  ~Generator();
  Generator(const Generator&) = delete;
  Generator& operator=(const Generator&) = delete;

  LoadReport run();

 private:
  enum class Phase : std::uint8_t { kWarmup, kWindow, kDrain };

  void advance_phase(Nanos now);
  void close_window(Nanos now);
  // Starts every request that is due and has a free connection.
  void start_requests(Nanos now);
  // When the next request is due: long ago in a closed loop, never when there is none.
  Nanos next_due() const noexcept;
  void offer(std::size_t peer);
  void on_events(std::size_t peer, std::uint32_t events);
  void on_answer(Nanos due, const Fault& fault, Nanos now);
  void expire(Nanos now);
  void drop(std::size_t peer);
  void wait_and_serve(Nanos now);
  bool finished() const noexcept;

  const LoadOptions options_;
  const Expected expected_;
  RequestSource source_;
  std::vector<std::unique_ptr<Peer>> peers_;
  int epoll_fd_ = -1;

  Phase phase_ = Phase::kWarmup;
  Nanos start_ = 0;
  Nanos window_begin_ = 0;
  Nanos window_end_ = 0;
  Nanos next_expiry_ = 0;
  std::uint64_t started_ = 0;
  std::size_t under_way_ = 0;
  std::size_t alive_ = 0;
  std::deque<std::size_t> free_;  // peers that may take a request, the longest free first
  std::vector<bool> is_free_;     // by peer: it is in free_

  Nanos opened_at_ = 0;
  ProcessTimes server_before_;
  std::uint64_t own_before_ = 0;
  LoadReport report_;
};

}  // namespace kavach::bench
