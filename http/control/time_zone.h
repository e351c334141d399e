// Time zones: IANA names from the system's database, with their summer times.
#pragma once

#include <string_view>

namespace kavach::http {

// Whether there is a zone of this name. Any thread.
bool is_time_zone(std::string_view name);

}  // namespace kavach::http
