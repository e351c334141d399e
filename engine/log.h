// Log: spdlog behind four functions, so that one place decides format, level and target.
//
// Lines go to stderr with the time in UTC. A message is always one line: control characters are escaped, so a
// client cannot forge a line. Never log a secret (key, password, token, webhook URL): log the id or the
// prefix. No log line on the data path. Any thread.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace kavach::log {

enum class Level : std::uint8_t { kDebug, kInfo, kWarning, kError, kOff };

struct Options {
  Level level = Level::kInfo;
  bool json = false;  // one JSON object a line instead of text
};

// REQUIRES: main thread, before other threads log.
void init(const Options& options);
void set_level(Level level) noexcept;
bool enabled(Level level) noexcept;
void write(Level level, std::string_view message);

template <typename... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::kDebug)) write(Level::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::kInfo)) write(Level::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::kWarning)) write(Level::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::kError)) write(Level::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace kavach::log
