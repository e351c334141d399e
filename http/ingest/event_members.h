// Event members: what the passes that read plain bodies share about the members of an event.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/money.h"
#include "http/ingest/pydantic_lax.h"

namespace kavach::http {

// Bits of the members that an event has shown.
enum Seen : std::uint32_t {
  kAgentName = 1U << 0,
  kProvider = 1U << 1,
  kModel = 1U << 2,
  kInputTokens = 1U << 3,
  kOutputTokens = 1U << 4,
  kCost = 1U << 5,
  kTimestamp = 1U << 6,
  kDurationMs = 1U << 7,
  kIdempotencyKey = 1U << 8,
  kRunId = 1U << 9,
  kPrompt = 1U << 10,
  kStatus = 1U << 11,
  kPartial = 1U << 12,
};
inline constexpr std::uint32_t kSeenRequired =
    kAgentName | kProvider | kModel | kInputTokens | kOutputTokens | kCost | kTimestamp;

// An integer of 18 digits fits in int64 without a test for overflow.
inline constexpr std::size_t kPlainIntDigitsMax = 18;
// Above it the slow pass decides: Pydantic compares the float, not the decimal.
inline constexpr NanoDollars kPlainCostMax = static_cast<NanoDollars>(kCostDollarsMax) * kNanoPerDollar;

inline bool is_json_space(char c) noexcept {
  return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

}  // namespace kavach::http
