// Time zones: IANA names from the system's database, with their summer times.
#pragma once

#include <string>
#include <string_view>

#include "engine/clock.h"

namespace kavach::http {

// Whether there is a zone of this name. Any thread.
bool is_time_zone(std::string_view name);

// `name`; UTC where this machine does not know it (any more).
std::string_view known_zone(std::string_view name);

// When the day of `at` begins in the zone, or the day that is `days` after it. A day whose midnight the
// clocks skip begins where they go on. REQUIRES: is_time_zone(zone).
WallMicros day_start(std::string_view zone, WallMicros at, int days = 0);
// The date in the zone: 2026-05-25. REQUIRES: is_time_zone(zone).
std::string local_date(std::string_view zone, WallMicros at);

}  // namespace kavach::http
