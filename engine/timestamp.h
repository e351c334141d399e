// Timestamps: ISO 8601 text to microseconds since 1970 UTC and back.
//
// Rule: contract/agentkavach.md 1.3 and 2.1, in ISO 8601's extended form: `YYYY-MM-DD`, 'T', 't' or one
// space, `HH:MM` or `HH:MM:SS` with a fraction of up to 9 digits (cut to microseconds), then `Z`, `+HH`,
// `+HHMM`, `+HH:MM` or nothing: a naive time is UTC. A date alone names no moment.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/clock.h"

namespace kavach {

// nullopt when the text is not such a timestamp or names a moment that does not exist (February 30th, hour
// 24, year 0 or 10000, also when only its offset leads there). A leap second (:60) is taken as the first
// moment of the next minute.
std::optional<WallMicros> parse_timestamp(std::string_view text) noexcept;

// `2026-05-25T14:30:00Z`; with six digits of fraction when it has one. REQUIRES: years 1 to 9999.
std::string format_timestamp(WallMicros t);
// The same into memory of the caller's, without allocating; returns how many bytes were written.
inline constexpr std::size_t kTimestampBytesMax = 27;
std::size_t write_timestamp(WallMicros t, char* out) noexcept;

}  // namespace kavach
