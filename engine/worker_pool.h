// WorkerPool: a few named threads for work that blocks (SQL, files), so that no shard ever does.
//
// Tasks are taken in the order in which they were posted; with more than one thread they overlap. The queue
// is bounded: a full one is an answer for the caller (try_post), not memory. A task must not throw: an
// exception that leaves one ends the process. A result goes back to a shard by posting to it from the task.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace kavach {

class WorkerPool {
 public:
  using Task = std::function<void()>;
  struct Options {
    std::string name =
        "worker";               // the threads are called name-0, name-1, ... REQUIRES: at most 12 characters
    std::uint32_t threads = 2;  // REQUIRES: at least 1
    std::size_t queue_max = 1024;  // tasks that wait, beside those being run; REQUIRES: at least 1
    // Of the threads, 0 to 19: how far they stand back where cores are short. At 19 they only have what
    // nobody else wants (SCHED_IDLE), and whoever wakes up runs at once.
    int nice = 0;
  };

  // Starts the threads.
  explicit WorkerPool(const Options& options);
  ~WorkerPool();  // stop()
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // False, and the task is not taken, when the queue is full or stop() was called. Never blocks for long:
  // what a shard uses. Any thread.
  [[nodiscard]] bool try_post(Task task);

  // Waits for room in the queue. False, and the task is not taken, once stop() was called.
  // Any thread but a shard's or one of the pool's own (where it could wait for itself).
  bool post(Task task);

  // Tasks that wait now; for metrics. Any thread.
  std::size_t queued() const noexcept;

  // Refuses new tasks, runs those that wait, joins the threads. Idempotent.
  // REQUIRES: one caller, not a thread of the pool.
  void stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kavach
