// Calendar: the days and months of UTC, counted from January 1970 (proleptic Gregorian; negative before it).
#pragma once

#include <cstdint>

#include "engine/clock.h"

namespace kavach {

inline constexpr std::int64_t kMicrosPerDay = 24 * kMicrosPerHour;

// The day, and the month, that holds `t`.
std::int64_t day_of(WallMicros t) noexcept;
std::int64_t month_of(WallMicros t) noexcept;

// Their first moments.
WallMicros start_of_day(std::int64_t day) noexcept;
WallMicros start_of_month(std::int64_t month) noexcept;

}  // namespace kavach
