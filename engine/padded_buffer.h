// PaddedBuffer: bytes from outside, with room behind them that a SIMD parser may read.
//
// Move-only and uninitialised (a std::vector would zero what recv is about to fill). Buffers of ordinary size
// are recycled by a BufferPool, last in first out, so that the next request finds them warm in the cache.
// Larger ones are kept only while they are used: fresh ones cost a page fault for every 4 KiB, and one big
// request does not stay in memory.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "engine/bounds.h"

namespace kavach {

class PaddedBuffer {
 public:
  PaddedBuffer() = default;
  explicit PaddedBuffer(std::size_t capacity) { reserve(capacity); }
  PaddedBuffer(PaddedBuffer&& other) noexcept { swap(other); }
  PaddedBuffer& operator=(PaddedBuffer&& other) noexcept {
    PaddedBuffer taken(std::move(other));
    swap(taken);
    return *this;
  }

  char* data() noexcept { return bytes_.get(); }
  const char* data() const noexcept { return bytes_.get(); }
  std::size_t size() const noexcept { return size_; }
  // Bytes that fit without moving; bounds::kBodyPadding more are always allocated behind them.
  std::size_t capacity() const noexcept { return capacity_; }
  std::string_view view() const noexcept { return {data(), size_}; }
  void clear() noexcept { size_ = 0; }
  void resize(std::size_t size) noexcept { size_ = size; }  // REQUIRES: size <= capacity()
  // Keeps the content; pointers into the buffer become invalid when it grows.
  void reserve(std::size_t capacity);
  void append(std::string_view bytes);
  // Removes the first n bytes.
  void consume(std::size_t n) noexcept;
  void swap(PaddedBuffer& other) noexcept;

 private:
  std::unique_ptr<char[]> bytes_;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

// Owner thread only.
class BufferPool {
 public:
  // Keeps up to `keep_max` buffers of `buffer_bytes`, and larger ones up to `large_bytes_max` together. A
  // smaller one would make who takes it next grow it.
  BufferPool(std::size_t buffer_bytes, std::size_t keep_max, std::size_t large_bytes_max)
      : buffer_bytes_(buffer_bytes), keep_max_(keep_max), large_bytes_max_(large_bytes_max) {}
  PaddedBuffer take();
  // One of at least `bytes` and not much more, if there is one; else one without memory.
  PaddedBuffer take_large(std::size_t bytes);
  void give(PaddedBuffer buffer);
  // Frees the large ones that nobody has needed since the last call.
  void free_unused();

 private:
  std::size_t buffer_bytes_;
  std::size_t keep_max_;
  std::size_t large_bytes_max_;
  std::vector<PaddedBuffer> free_;
  std::vector<PaddedBuffer> large_;  // the last one came last
  std::size_t large_bytes_ = 0;
  std::size_t large_unused_ = 0;  // the first ones, so many of which have been here since free_unused()
};

}  // namespace kavach
