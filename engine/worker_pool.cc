#include "engine/worker_pool.h"

#include "engine/check.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace kavach {
namespace {

constexpr int kNiceMax = 19;

// Set in the threads of a pool.
thread_local const void* pool_of_this_thread = nullptr;

}  // namespace

class WorkerPool::Impl {
 public:
  explicit Impl(const Options& options) : queue_max_(options.queue_max), nice_(options.nice) {
    // The kernel keeps 15 characters of a thread's name.
    KAVACH_CHECK(options.name.size() <= 12, "a pool's name with its number fits in 15 characters");
    KAVACH_CHECK(options.threads > 0, "a pool without threads would never run a task");
    KAVACH_CHECK(options.queue_max > 0, "a pool without a queue would refuse every task");
    KAVACH_CHECK(options.nice >= 0, "only a privileged process may push itself forward");
    KAVACH_CHECK(options.nice <= kNiceMax, "the kernel knows no lower priority");
    threads_.reserve(options.threads);
    for (std::uint32_t i = 0; i < options.threads; ++i) {
      threads_.emplace_back([this] { run(); });
      pthread_setname_np(threads_.back().native_handle(), (options.name + "-" + std::to_string(i)).c_str());
    }
  }

  bool try_post(Task task) {
    {
      const std::lock_guard lock(mutex_);
      if (stopping_ || queue_.size() >= queue_max_) return false;
      queue_.push_back(std::move(task));
    }
    task_ready_.notify_one();
    return true;
  }

  bool post(Task task) {
    KAVACH_CHECK(pool_of_this_thread != this, "a worker must not wait for its own pool");
    {
      std::unique_lock lock(mutex_);
      room_ready_.wait(lock, [this] { return stopping_ || queue_.size() < queue_max_; });
      if (stopping_) return false;
      queue_.push_back(std::move(task));
    }
    task_ready_.notify_one();
    return true;
  }

  std::size_t queued() const {
    const std::lock_guard lock(mutex_);
    return queue_.size();
  }

  void stop() {
    KAVACH_CHECK(pool_of_this_thread != this, "a worker cannot join itself");
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    task_ready_.notify_all();
    room_ready_.notify_all();
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }

 private:
  void run() noexcept {
    pool_of_this_thread = this;
    // Of this thread alone, on Linux. To stand back needs no privilege.
    if (nice_ > 0) setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), nice_);
    // Beside its share of the core, what a thread of the ordinary class is given comes in whole slices:
    // whoever wakes up meanwhile may wait for the next tick.
    const sched_param none{};
    if (nice_ == kNiceMax) pthread_setschedparam(pthread_self(), SCHED_IDLE, &none);
    for (;;) {
      Task task;
      {
        std::unique_lock lock(mutex_);
        task_ready_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
        if (queue_.empty()) return;
        task = std::move(queue_.front());
        queue_.pop_front();
      }
      room_ready_.notify_one();
      task();
    }
  }

  const std::size_t queue_max_;
  const int nice_;
  mutable std::mutex mutex_;
  std::condition_variable task_ready_;
  std::condition_variable room_ready_;
  std::deque<Task> queue_;  // guarded by mutex_
  bool stopping_ = false;   // guarded by mutex_
  std::vector<std::thread>
      threads_;  // constant between the constructor and stop(); last: they use what is above
};

WorkerPool::WorkerPool(const Options& options) : impl_(std::make_unique<Impl>(options)) {}
WorkerPool::~WorkerPool() {
  stop();
}
bool WorkerPool::try_post(Task task) {
  return impl_->try_post(std::move(task));
}
bool WorkerPool::post(Task task) {
  return impl_->post(std::move(task));
}
std::size_t WorkerPool::queued() const noexcept {
  return impl_->queued();
}
void WorkerPool::stop() {
  impl_->stop();
}

}  // namespace kavach
