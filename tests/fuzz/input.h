// Input: a fuzzer's bytes, read as a stream of choices.
//
// When the bytes run out every choice is 0, so that any bytes are a whole program.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace kavach::fuzz {

class Input {
 public:
  explicit Input(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}

  bool at_end() const { return bytes_.empty(); }

  std::uint8_t byte() {
    if (bytes_.empty()) return 0;
    const std::uint8_t first = bytes_.front();
    bytes_ = bytes_.subspan(1);
    return first;
  }

  // REQUIRES: bound > 0. One byte for small bounds, so that a mutated byte is a changed choice.
  std::uint32_t below(std::uint32_t bound) {
    const std::uint32_t low = byte();
    return (bound <= 256 ? low : low | std::uint32_t{byte()} << 8) % bound;
  }

  // Up to `size` bytes, fewer at the end.
  std::span<const std::uint8_t> take(std::size_t size) {
    const auto taken = bytes_.first(std::min(size, bytes_.size()));
    bytes_ = bytes_.subspan(taken.size());
    return taken;
  }

  std::span<const std::uint8_t> rest() { return take(bytes_.size()); }

 private:
  std::span<const std::uint8_t> bytes_;
};

}  // namespace kavach::fuzz
