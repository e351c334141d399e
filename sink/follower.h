// Follower: the thread that follows the journal, and how it waits: for the next frames, after a failure
// longer each time, and no longer than whoever stops it has patience.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

#include "engine/clock.h"
#include "engine/ids.h"
#include "sink/journal/journal.h"

namespace kavach::sink {

class Follower {
 public:
  // REQUIRES: the journal outlives it.
  explicit Follower(Journal& journal) : journal_(journal) {}
  ~Follower() { stop(0); }

  // `run` returns soon after stopping() and time_is_up(); `name` is the thread's, at most 15 characters.
  void start(const char* name, std::function<void()> run);
  // Lets it go on for `patience_us`, then joins the thread. REQUIRES: one caller. Idempotent.
  void stop(std::int64_t patience_us);

  // The thread's own.
  bool stopping() const noexcept { return stopping_.load(); }
  bool time_is_up() const noexcept;
  // Sleeps until stop() at most; after it, until its patience ends.
  void pause(std::int64_t micros);
  // Sleeps longer with each call until succeeded().
  void back_off();
  void succeeded() noexcept { backoff_us_ = 0; }

 private:
  Journal& journal_;
  std::thread thread_;
  std::int64_t backoff_us_ = 0;
  Random random_;
  std::atomic<bool> stopping_{false};
  std::atomic<MonoMicros> deadline_{0};
  std::mutex mutex_;
  std::condition_variable stop_asked_;
};

}  // namespace kavach::sink
