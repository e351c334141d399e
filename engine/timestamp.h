// Timestamps: ISO 8601 text to microseconds since 1970 UTC and back.
//
// Rule: contract/agentkavach.md 1.3 and 2.1. `Z` or an offset, a fraction of 0 to 9 digits (cut to
// microseconds), a naive time is UTC. Date and time are separated by 'T', 't' or one space.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/clock.h"

namespace kavach {

// nullopt when the text is not such a timestamp or names a moment that does not exist (February 30th, hour
// 24, year 0 or 10000). A leap second (:60) is taken as the first moment of the next minute.
std::optional<WallMicros> parse_timestamp(std::string_view text) noexcept;

// `2026-05-25T14:30:00Z`; with six digits of fraction when it has one.
std::string format_timestamp(WallMicros t);

}  // namespace kavach
