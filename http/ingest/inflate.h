// Inflate: a gzip body into a padded buffer, under a hard bound, whatever the body claims about its size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "engine/padded_buffer.h"

namespace kavach::http {

enum class InflateError : std::uint8_t {
  kCorrupt,   // not gzip, truncated, bad checksum, or bytes behind the last member: 400
  kTooLarge,  // the content is longer than the bound: 413
};

// One per shard (it owns libdeflate's state); not thread-safe.
class Inflater {
 public:
  Inflater();
  ~Inflater();

  // Inflates all members of `gzip` into `out` (cleared first); at most `bytes_max` bytes of content. Memory
  // grows with the content found, not with the size that the trailer claims. True on success.
  bool inflate(std::string_view gzip, std::size_t bytes_max, PaddedBuffer& out, InflateError& error);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kavach::http
