#include "sink/follower.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace kavach::sink {
namespace {

constexpr std::int64_t kBackoffFirst = 50 * kMicrosPerMilli;
constexpr std::int64_t kBackoffMax = 5 * kMicrosPerSecond;

}  // namespace

void Follower::start(const char* name, std::function<void()> run) {
  thread_ = std::thread([name, run = std::move(run)] {
    ::pthread_setname_np(::pthread_self(), name);
    run();
  });
}

void Follower::stop(std::int64_t patience_us) {
  deadline_.store(system_clock().mono() + patience_us);
  {
    const std::lock_guard lock(mutex_);
    stopping_.store(true);
  }
  stop_asked_.notify_all();
  journal_.interrupt();
  if (thread_.joinable()) thread_.join();
}

bool Follower::time_is_up() const noexcept {
  return stopping_ && system_clock().mono() >= deadline_;
}

void Follower::pause(std::int64_t micros) {
  if (stopping_) {
    const std::int64_t left = std::max<std::int64_t>(0, deadline_ - system_clock().mono());
    std::this_thread::sleep_for(std::chrono::microseconds(std::min(micros, left)));
    return;
  }
  std::unique_lock lock(mutex_);
  stop_asked_.wait_for(lock, std::chrono::microseconds(micros), [this] { return stopping_.load(); });
}

void Follower::back_off() {
  backoff_us_ = std::clamp(backoff_us_ * 2, kBackoffFirst, kBackoffMax);
  // Between half and all of it, so that several nodes do not come back in step.
  pause(backoff_us_ / 2 +
        static_cast<std::int64_t>(random_.next() % static_cast<std::uint64_t>(backoff_us_ / 2)));
}

}  // namespace kavach::sink
