// Current: a value that a reload replaces while others read it.
#pragma once

#include <memory>
#include <mutex>
#include <utility>

namespace kavach::http {

// Any thread. What get() gave stays as it was.
template <typename T>
class Current {
 public:
  explicit Current(T value) : value_(std::make_shared<const T>(std::move(value))) {}

  std::shared_ptr<const T> get() const {
    const std::lock_guard lock(mutex_);
    return value_;
  }
  void set(T value) {
    auto next = std::make_shared<const T>(std::move(value));
    const std::lock_guard lock(mutex_);
    value_.swap(next);
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const T> value_;  // shared with readers that began before a reload; guarded by mutex_
};

}  // namespace kavach::http
