// Bounds: every fixed capacity in one place, and the relations that must hold between them.
//
// What an operator may change is a setting (engine/settings.cc); its range ends at these.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kavach::bounds {

// Events of one batch: event_id() keeps an event's index in 12 bits.
inline constexpr std::uint32_t kBatchEventsMax = 4096;
// A request body, inflated.
inline constexpr std::size_t kBodyBytesMax = std::size_t{64} << 20;
inline constexpr std::size_t kHeaderBytesMax = std::size_t{64} << 10;
// Bytes behind a body that the parser may read (simdjson's SIMDJSON_PADDING).
inline constexpr std::size_t kBodyPadding = 64;
inline constexpr std::uint32_t kShardsMax = 64;
// Messages under way between one pair of shards; more wait in the sender's own queue.
inline constexpr std::size_t kMailboxSlots = 4096;
// Nesting of JSON that the slow pass follows; deeper is refused.
inline constexpr std::size_t kJsonDepthMax = 512;
// Lengths in characters, from contract/agentkavach.md 2.1.
inline constexpr std::size_t kNameCharsMax = 255;
inline constexpr std::size_t kProviderCharsMax = 64;
inline constexpr std::size_t kPromptCharsMax = 2048;

static_assert(kBatchEventsMax <= (1U << 12), "an event's index must fit in rand_a of its UUIDv7");
static_assert((kMailboxSlots & (kMailboxSlots - 1)) == 0, "the ring masks its positions");

}  // namespace kavach::bounds
