#include "engine/padded_buffer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/check.h"

namespace kavach {
namespace {

// A buffer is not lent to who needs less than this part of it.
constexpr std::size_t kTooLarge = 4;

}  // namespace

void PaddedBuffer::reserve(std::size_t capacity) {
  if (capacity <= capacity_) return;
  std::unique_ptr<char[]> grown(new char[capacity + bounds::kBodyPadding]);
  if (size_ > 0) std::memcpy(grown.get(), bytes_.get(), size_);
  // The parser may look at the padding but does not use it; zeros keep memory checkers content.
  std::memset(grown.get() + capacity, 0, bounds::kBodyPadding);
  bytes_ = std::move(grown);
  capacity_ = capacity;
}

void PaddedBuffer::append(std::string_view bytes) {
  if (bytes.empty()) return;
  if (size_ + bytes.size() > capacity_) reserve(std::max(size_ + bytes.size(), capacity_ * 2));
  std::memcpy(bytes_.get() + size_, bytes.data(), bytes.size());
  size_ += bytes.size();
}

void PaddedBuffer::consume(std::size_t n) noexcept {
  KAVACH_DCHECK(n <= size_, "consume() beyond the content");
  size_ -= n;
  if (size_ > 0) std::memmove(bytes_.get(), bytes_.get() + n, size_);
}

void PaddedBuffer::swap(PaddedBuffer& other) noexcept {
  std::swap(bytes_, other.bytes_);
  std::swap(size_, other.size_);
  std::swap(capacity_, other.capacity_);
}

PaddedBuffer BufferPool::take() {
  if (free_.empty()) return PaddedBuffer(buffer_bytes_);
  PaddedBuffer buffer = std::move(free_.back());
  free_.pop_back();
  buffer.clear();
  return buffer;
}

PaddedBuffer BufferPool::take_large(std::size_t bytes) {
  for (std::size_t i = large_.size(); i-- > 0;) {
    if (large_[i].capacity() < bytes || large_[i].capacity() / kTooLarge > bytes) continue;
    PaddedBuffer buffer = std::move(large_[i]);
    large_.erase(large_.begin() + static_cast<std::ptrdiff_t>(i));
    large_unused_ = std::min(large_unused_, i);
    large_bytes_ -= buffer.capacity();
    buffer.clear();
    return buffer;
  }
  return {};
}

void BufferPool::give(PaddedBuffer buffer) {
  if (buffer.capacity() < buffer_bytes_) return;
  if (buffer.capacity() > buffer_bytes_) {
    if (large_bytes_ + buffer.capacity() > large_bytes_max_) return;
    large_bytes_ += buffer.capacity();
    large_.push_back(std::move(buffer));
  } else if (free_.size() < keep_max_) {
    free_.push_back(std::move(buffer));
  }
}

void BufferPool::free_unused() {
  for (std::size_t i = 0; i < large_unused_; ++i) large_bytes_ -= large_[i].capacity();
  large_.erase(large_.begin(), large_.begin() + static_cast<std::ptrdiff_t>(large_unused_));
  large_unused_ = large_.size();
}

}  // namespace kavach
