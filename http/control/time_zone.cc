#include "http/control/time_zone.h"

#include <date/tz.h>

#include <chrono>
#include <exception>
#include <string>

namespace kavach::http {

bool is_time_zone(std::string_view name) {
  try {
    // By name alone: a path out of the database's folder is none.
    if (name.empty() || name.front() == '/' || name.find("..") != std::string_view::npos) return false;
    return date::locate_zone(std::string(name)) != nullptr;
  } catch (const std::exception&) {
    return false;
  }
}

WallMicros day_start(std::string_view zone, WallMicros at, int days) {
  using Instant = date::sys_time<std::chrono::microseconds>;
  const date::time_zone* const rules = date::locate_zone(std::string(zone));
  const auto local = rules->to_local(Instant(std::chrono::microseconds(at)));
  const auto midnight = date::floor<date::days>(local) + date::days(days);
  const auto start = rules->to_sys(midnight, date::choose::earliest);
  return std::chrono::duration_cast<std::chrono::microseconds>(start.time_since_epoch()).count();
}

}  // namespace kavach::http
