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

std::string_view known_zone(std::string_view name) {
  return is_time_zone(name) ? name : "UTC";
}

namespace {

using Instant = date::sys_time<std::chrono::microseconds>;

date::local_days local_day(const date::time_zone& rules, WallMicros at) {
  return date::floor<date::days>(rules.to_local(Instant(std::chrono::microseconds(at))));
}

}  // namespace

WallMicros day_start(std::string_view zone, WallMicros at, int days) {
  const date::time_zone* const rules = date::locate_zone(std::string(zone));
  const auto start = rules->to_sys(local_day(*rules, at) + date::days(days), date::choose::earliest);
  return std::chrono::duration_cast<std::chrono::microseconds>(start.time_since_epoch()).count();
}

std::string local_date(std::string_view zone, WallMicros at) {
  return date::format("%F", local_day(*date::locate_zone(std::string(zone)), at));
}

}  // namespace kavach::http
