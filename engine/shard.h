// Shard: one core's event loop and everything that lives on it. Runtime: all shards, and the lanes between
// them.
//
// Invariant: only its own thread touches a shard's state. The one legal way across is a Message through the
// lane of a sender (a single-producer ring per pair; no lock, no allocation) or, for threads that are no
// sender of their own, Shard::post() (a locked inbox: for control traffic, never for the data path).
//
// The loop is our own, not io_context::run(). One turn is
//   1. wait in the reactor if nothing is ready (spinning first where configured), then run ready handlers, up
//      to a number and a time, so that a flood of sockets or of large bodies cannot starve the mailboxes;
//   2. drain the mailboxes and the inbox;
//   3. the end-of-turn hooks, which do once what many handlers asked for: wake the journal, flush a pipeline;
//   4. publish what was sent to others and wake those of them that sleep, each at most once.
// A wake-up costs about 12 us of CPU on both sides together, a message under load 27 ns (limits.md 7): hence
// 3 and 4.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/bounds.h"
#include "engine/clock.h"
#include "engine/mailbox.h"
#include "engine/metrics.h"

namespace kavach {

using ShardId = std::uint32_t;

// A call on another shard, small enough to be copied through a ring. `run` must not block and must not throw.
struct Message {
  void (*run)(void* target, std::uint64_t a, std::uint64_t b) noexcept;
  void* target;
  std::uint64_t a;
  std::uint64_t b;
};

class Runtime;

// The sending end of one thread: a shard's own, or a named thread's such as the journal's.
// Its owner thread only.
class Outbox {
 public:
  // Queues `message`; nothing is woken before flush(). Never fails: what does not fit in the ring waits here,
  // and is bounded by what the caller has under way (requests, frames).
  void send(ShardId to, const Message& message);
  // Moves on what waits and wakes the receivers. False when something still waits for room in a ring: a shard
  // tries again with its next turn, any other thread has to call again.
  bool flush();

 private:
  friend class Runtime;
  friend class Shard;
  Outbox(Runtime& runtime, std::uint32_t producer) : runtime_(runtime), producer_(producer) {}
  bool has_overflow() const noexcept { return overflow_count_ > 0; }

  Runtime& runtime_;
  std::uint32_t producer_;
  std::vector<std::deque<Message>> overflow_;  // by receiver
  std::size_t overflow_count_ = 0;
  std::uint64_t dirty_ = 0;  // receivers that got something since the last flush, one bit each
  static_assert(bounds::kShardsMax <= 64, "dirty_ has one bit per shard");
};

struct ShardMetrics {
  Counter turns, handlers, messages, sleeps, slow_turns;
};

class Shard {
 public:
  ShardId id() const noexcept { return id_; }
  // For sockets and timers of this shard. Its own thread, or before the start.
  boost::asio::io_context& io() noexcept { return io_; }
  bool on_this_thread() const noexcept { return current() == this; }
  // The shard whose thread this is, or null.
  static Shard* current() noexcept;

  // Any thread. In order per sender. For control traffic; `task` must not block.
  void post(std::function<void()> task);
  // To another shard (or itself), in order; delivered after this turn. Own thread.
  Outbox& outbox() noexcept { return outbox_; }

  // The time, read at most once per turn. Own thread.
  WallMicros wall_now() noexcept {
    refresh_time();
    return wall_;
  }
  MonoMicros mono_now() noexcept {
    refresh_time();
    return mono_;
  }

  // Called at the end of each turn that ran anything / about every 100 ms.
  // REQUIRES: before the start; called on the shard's thread.
  void at_end_of_turn(std::function<void()> hook) { turn_hooks_.push_back(std::move(hook)); }
  void at_tick(std::function<void()> hook) { tick_hooks_.push_back(std::move(hook)); }

  // Names what the shard is doing, for the log line of a slow turn. `what` is a literal.
  void note_activity(const char* what) noexcept { activity_ = what; }

  const ShardMetrics& metrics() const noexcept { return metrics_; }

 private:
  friend class Runtime;
  friend class Outbox;
  Shard(Runtime& runtime, ShardId id);

  void run();
  std::size_t drain_mailboxes();
  std::size_t drain_inbox();
  bool anything_waiting() const noexcept;
  std::size_t wait();
  void wake() noexcept;  // any thread
  void arm_wake_descriptor();
  void arm_tick();
  void refresh_time() noexcept;

  // Constant after construction.
  Runtime& runtime_;
  const ShardId id_;
  int wake_fd_ = -1;

  // Own thread.
  boost::asio::io_context io_;
  boost::asio::posix::basic_stream_descriptor<boost::asio::io_context::executor_type> wake_descriptor_;
  boost::asio::basic_waitable_timer<std::chrono::steady_clock,
                                    boost::asio::wait_traits<std::chrono::steady_clock>,
                                    boost::asio::io_context::executor_type>
      tick_timer_;
  std::uint64_t wake_value_ = 0;
  Outbox outbox_;
  std::vector<std::function<void()>> turn_hooks_;
  std::vector<std::function<void()>> tick_hooks_;
  bool time_is_stale_ = true;
  WallMicros wall_ = 0;
  MonoMicros mono_ = 0;
  const char* activity_ = "nothing";
  ShardMetrics metrics_;

  // Any thread.
  alignas(64) std::atomic<bool> sleeping_{false};
  std::atomic<bool> stopping_{false};
  std::atomic<bool> inbox_filled_{false};
  std::mutex inbox_mutex_;
  std::vector<std::function<void()>> inbox_;  // guarded by inbox_mutex_
};

class Runtime {
 public:
  struct Options {
    std::uint32_t shards = 1;
    std::uint32_t outside_senders =
        0;             // threads that are no shard and send to shards: outside_outbox(0..n-1)
    bool pin = false;  // shard i on core i (modulo the cores)
    std::int64_t spin_us = 0;
    std::uint32_t turn_handlers_max = 256;
    std::int64_t turn_warn_us = 100'000;
    const Clock* clock = &system_clock();
  };

  explicit Runtime(const Options& options);
  ~Runtime();  // REQUIRES: stopped

  std::uint32_t size() const noexcept { return static_cast<std::uint32_t>(shards_.size()); }
  Shard& shard(ShardId id) noexcept { return *shards_[id]; }
  Outbox& outside_outbox(std::uint32_t sender) noexcept { return *outside_[sender]; }

  // Starts the threads. What lives on the shards was built before.
  void start();
  // Asks every shard to end after its current turn and joins them. Sockets and timers that are left are
  // dropped; whoever owns them has drained before.
  void stop();

  void add_metrics(MetricsRegistry& registry) const;

 private:
  friend class Shard;
  friend class Outbox;
  using Ring = SpscRing<Message, bounds::kMailboxSlots>;
  Ring& ring(std::uint32_t producer, ShardId consumer) noexcept {
    return *rings_[producer * size() + consumer];
  }

  Options options_;
  std::uint32_t producers_;
  std::vector<std::unique_ptr<Ring>> rings_;  // [producer][consumer]
  std::vector<std::unique_ptr<Shard>> shards_;
  std::vector<std::unique_ptr<Outbox>> outside_;
  std::vector<std::thread> threads_;
};

}  // namespace kavach
