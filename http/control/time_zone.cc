#include "http/control/time_zone.h"

#include <date/tz.h>

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

}  // namespace kavach::http
