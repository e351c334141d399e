// Sample bodies: what the Python SDK sends (member order, spacing, digits), with fresh idempotency keys.
//
// Bodies of different seeds differ in every value, as those of different agents do: a processor that meets
// the same bytes again and again learns them, and makes a parser or an inflater look up to a third faster.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/clock.h"
#include "engine/padded_buffer.h"

namespace kavach::bench {

// Bodies that a micro-benchmark rotates over.
inline constexpr std::uint64_t kDistinctBodies = 16;
// No timestamp of a sample is later.
inline constexpr WallMicros kSampleNow = 1'800'000'000 * kMicrosPerSecond;

enum class MemberOrder : std::uint8_t { kSdk, kShuffled };

struct SampleBody {
  std::string text;
  std::vector<std::size_t> key_offsets;  // of each event's idempotency key (36 characters)
};
// One agent's batch; the same seed gives the same body.
SampleBody make_sample(std::uint32_t events, std::uint64_t seed, MemberOrder order = MemberOrder::kSdk);

// Gives every event the key that belongs to the next number. `body` is the sample's text or a copy of it.
void stamp_keys(char* body, const std::vector<std::size_t>& key_offsets, std::uint64_t& serial) noexcept;

// As Python's gzip.compress() does by default: zlib, level 9.
std::string gzip(std::string_view text);

// With the room behind it that the parser asks for.
PaddedBuffer padded(std::string_view text);

}  // namespace kavach::bench
