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

// The events of one agent's batch; the same seed gives the same batch.
struct SampleEvent {
  std::uint64_t input_tokens;
  std::uint64_t output_tokens;
  std::uint64_t cost_nano;  // of dollars
  std::uint64_t duration_ms;
  std::uint64_t minute;  // of kSampleHour
  std::uint64_t second;
  std::uint64_t micros;
  std::string idempotency_key;
};
struct SampleBatch {
  std::string agent;
  std::string model;
  std::string provider;
  std::string run;
  std::vector<SampleEvent> events;
};
SampleBatch make_batch(std::uint32_t events, std::uint64_t seed);

enum class MemberOrder : std::uint8_t { kSdk, kShuffled };

struct SampleBody {
  std::string text;
  std::vector<std::size_t> key_offsets;  // of each event's idempotency key (36 characters)
};
// make_batch() as JSON.
SampleBody make_sample(std::uint32_t events, std::uint64_t seed, MemberOrder order = MemberOrder::kSdk);

// Gives every event the key that belongs to the next number. `body` is the sample's text or a copy of it.
void stamp_keys(char* body, const std::vector<std::size_t>& key_offsets, std::uint64_t& serial) noexcept;

// As Python's gzip.compress() does by default: zlib, level 9.
std::string gzip(std::string_view text);

// With the room behind it that the parser asks for.
PaddedBuffer padded(std::string_view text);

}  // namespace kavach::bench
