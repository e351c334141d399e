#include "http/control/origins.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "http/control/comma_list.h"

namespace kavach::http {
namespace {

bool is_origin(std::string_view text) noexcept {
  for (const std::string_view scheme : {"https://", "http://"}) {
    if (!text.starts_with(scheme)) continue;
    text.remove_prefix(scheme.size());
    return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == ':' ||
             c == '[' || c == ']';
    });
  }
  return false;
}

}  // namespace

Result<Origins> Origins::parse(std::string_view list) {
  Origins parsed;
  for (const std::string_view item : comma_list(list)) {
    if (!is_origin(item)) {
      return Failure{
          fmt::format("control.cors_origins: '{}' is no origin; one is 'https://app.example.com', in lower "
                      "case and without a path",
                      item)};
    }
    parsed.origins_.emplace_back(item);
  }
  return parsed;
}

bool Origins::allow(std::string_view origin) const noexcept {
  return std::find(origins_.begin(), origins_.end(), origin) != origins_.end();
}

std::string Origins::headers(std::string_view origin) const {
  if (empty()) return {};
  if (!allow(origin)) return "Vary: Origin\r\n";
  return fmt::format("Vary: Origin\r\nAccess-Control-Allow-Origin: {}\r\n", origin);
}

std::string Origins::preflight_headers(std::string_view origin, std::string_view methods) const {
  if (!allow(origin)) return headers(origin);
  return fmt::format(
      "{}Access-Control-Allow-Methods: {}\r\nAccess-Control-Allow-Headers: Authorization, Content-Type\r\n"
      "Access-Control-Max-Age: 600\r\n",
      headers(origin), methods);
}

}  // namespace kavach::http
