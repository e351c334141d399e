#include "engine/log.h"

#include <spdlog/logger.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <atomic>
#include <cstdint>
#include <memory>

namespace kavach::log {
namespace {

constexpr const char* kTextPattern = "%Y-%m-%dT%H:%M:%S.%eZ %l %v";
constexpr const char* kJsonPattern = R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l","message":"%v"})";

std::atomic<Level> current_level{Level::kInfo};
// Constant after init().
bool json_lines = false;

std::unique_ptr<spdlog::formatter> make_formatter(bool json) {
  return std::make_unique<spdlog::pattern_formatter>(json ? kJsonPattern : kTextPattern,
                                                     spdlog::pattern_time_type::utc);
}

// Never destroyed, so that a thread may still log while the process exits. It lets every line through: the
// level is decided by enabled(), before a message is formatted.
spdlog::logger& logger() {
  static spdlog::logger& instance = []() -> spdlog::logger& {
    auto* made = new spdlog::logger("kavach", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_formatter(make_formatter(false));
    made->set_level(spdlog::level::trace);
    return *made;
  }();
  return instance;
}

spdlog::level::level_enum spdlog_level(Level level) noexcept {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarning:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
    case Level::kOff:
      return spdlog::level::off;
  }
  return spdlog::level::off;
}

// Length of the UTF-8 sequence at the front of `text`; 0 when there is none (RFC 3629: no overlong form, no
// surrogate, nothing beyond U+10FFFF).
std::size_t utf8_length(std::string_view text) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const auto continues = [&](std::size_t i) { return i < text.size() && (byte(i) & 0xc0) == 0x80; };
  const std::uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return continues(1) ? 2 : 0;
  if (lead >= 0xe0 && lead <= 0xef) {
    if (!continues(1) || !continues(2)) return 0;
    const bool overlong = lead == 0xe0 && byte(1) < 0xa0;
    const bool surrogate = lead == 0xed && byte(1) >= 0xa0;
    return overlong || surrogate ? 0 : 3;
  }
  if (lead >= 0xf0 && lead <= 0xf4) {
    if (!continues(1) || !continues(2) || !continues(3)) return 0;
    const bool overlong = lead == 0xf0 && byte(1) < 0x90;
    const bool beyond = lead == 0xf4 && byte(1) >= 0x90;
    return overlong || beyond ? 0 : 4;
  }
  return 0;
}

void append_control(std::string& out, std::uint8_t byte) {
  switch (byte) {
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    default:
      out += fmt::format("\\u{:04x}", byte);
  }
}

// One message is one line of valid UTF-8, whatever a client or a file put into it: control characters are
// escaped (also DEL, which a terminal acts on), broken UTF-8 becomes U+FFFD. For JSON, quotes and backslashes
// too.
std::string escaped(std::string_view message, bool json) {
  std::string out;
  out.reserve(message.size() + 16);
  while (!message.empty()) {
    const char c = message.front();
    const std::size_t length = utf8_length(message);
    if (length == 0) {
      out += "\xef\xbf\xbd";
    } else if (static_cast<std::uint8_t>(c) < 0x20 || c == 0x7f) {
      append_control(out, static_cast<std::uint8_t>(c));
    } else {
      if (json && (c == '"' || c == '\\')) out.push_back('\\');
      out.append(message.substr(0, length));
    }
    message.remove_prefix(length == 0 ? 1 : length);
  }
  return out;
}

}  // namespace

void init(const Options& options) {
  json_lines = options.json;
  logger().set_formatter(make_formatter(options.json));
  set_level(options.level);
}

void set_level(Level level) noexcept {
  current_level.store(level, std::memory_order_relaxed);
}

bool enabled(Level level) noexcept {
  return level != Level::kOff && level >= current_level.load(std::memory_order_relaxed);
}

void write(Level level, std::string_view message) {
  if (enabled(level)) logger().log(spdlog_level(level), escaped(message, json_lines));
}

}  // namespace kavach::log
