// SpscRing: the one-way lane between two threads, without lock or allocation.
//
// One thread pushes, one drains. Each side works on its own index and keeps a copy of the other's, so that
// the cache line of the opposite index is touched only when the copy says full or empty. Sleeping and waking
// are the caller's (engine/shard.h): empty() is a plain look, and needs a sequentially consistent fence on
// both sides to be the last word before a sleep.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace kavach {

template <typename T, std::size_t Slots>
class SpscRing {
  static_assert(std::is_trivially_copyable_v<T>);
  static_assert(Slots > 0 && (Slots & (Slots - 1)) == 0, "positions are masked");

 public:
  SpscRing() : slots_(new T[Slots]) {}
  SpscRing(const SpscRing&) = delete;
  SpscRing& operator=(const SpscRing&) = delete;

  // Producer. False when the ring is full.
  bool try_push(const T& value) noexcept {
    const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
    if (tail - head_seen_ == Slots) {
      head_seen_ = head_.load(std::memory_order_acquire);
      if (tail - head_seen_ == Slots) return false;
    }
    slots_[tail & (Slots - 1)] = value;
    tail_.store(tail + 1, std::memory_order_release);
    return true;
  }

  // Consumer. Calls `each(value)` for at most `max` values; returns how many. It leaves what came after it
  // last looked for the next call, and returns 0 (for a max above 0) only when the ring is empty.
  template <typename F>
  std::size_t drain(F&& each, std::size_t max) {
    std::uint64_t head = head_.load(std::memory_order_relaxed);
    if (head == tail_seen_) {
      tail_seen_ = tail_.load(std::memory_order_acquire);
      if (head == tail_seen_) return 0;
    }
    std::size_t count = 0;
    while (head != tail_seen_ && count < max) {
      const T value = slots_[head & (Slots - 1)];
      ++head;
      ++count;
      // Freed before the call, which may push into the ring of the way back.
      head_.store(head, std::memory_order_release);
      each(value);
    }
    return count;
  }

  // Either thread.
  bool empty() const noexcept {
    return head_.load(std::memory_order_relaxed) == tail_.load(std::memory_order_relaxed);
  }

 private:
  // The producer's line, the consumer's line, and what neither changes.
  alignas(64) std::atomic<std::uint64_t> tail_{0};
  std::uint64_t head_seen_ = 0;
  alignas(64) std::atomic<std::uint64_t> head_{0};
  std::uint64_t tail_seen_ = 0;
  alignas(64) const std::unique_ptr<T[]> slots_;
};

}  // namespace kavach
