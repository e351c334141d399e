// Settings: the declared table behind Config, one row for every setting.
//
// Internal to engine/config*.cc, which read, check, print and compare configs by walking this table;
// everybody else uses engine/config.h. A new setting is a member of Config and a row in engine/settings.cc,
// nothing more.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/config.h"

namespace kavach {

// Where a setting lives in a Config.
template <typename T>
struct Field {
  T& (*of)(Config&);

  T& in(Config& config) const { return of(config); }
  // `of` only finds the member, it changes nothing.
  const T& in(const Config& config) const { return of(const_cast<Config&>(config)); }
};

struct IntegerSetting {
  Field<std::int64_t> field;
  std::int64_t initial;
  std::int64_t min;
  std::int64_t max;
};

struct BooleanSetting {
  Field<bool> field;
  bool initial;
};

// Any text without control characters.
struct TextSetting {
  // A server's URL may hold a password, and a secret is one: neither is ever shown.
  enum class Rule : std::uint8_t { kAny, kNotEmpty, kIpAddress, kRedisUrl, kPostgresUrl, kSecret };
  Field<std::string> field;
  std::string_view initial;
  Rule rule;
};

// One word out of a few.
struct ChoiceSetting {
  Field<std::string> field;
  std::string_view initial;
  std::span<const std::string_view> choices;
};

struct Setting {
  std::string_view key;  // "http.port": the TOML table, a dot, the key in it
  std::variant<IntegerSetting, BooleanSetting, TextSetting, ChoiceSetting> kind;
  std::string_view unit;
  Reload reload;
  std::string_view help;
  // Other variables that set it, where KAVACH_'s own does not; of several the last one that is set holds.
  std::vector<std::string_view> env_aliases = {};

  std::string_view table() const { return key.substr(0, key.find('.')); }
  std::string_view name() const { return key.substr(key.find('.') + 1); }
  std::string env_name() const;  // "KAVACH_HTTP_PORT"
};

// In the order of Config; the settings of one TOML table stand together. Lives as long as the process.
std::span<const Setting> settings();

// A setting's value, or its default, spelled as TOML.
std::string value_text(const Setting& setting, const Config& config, Secrets secrets);

// `text` as a TOML basic string. REQUIRES: no control characters.
std::string quoted(std::string_view text);

// Helps std::visit to take one lambda per kind of setting.
template <typename... Visitors>
struct Overloaded : Visitors... {
  using Visitors::operator()...;
};
// Deduced from the aggregate by g++ 12, but not yet by clang 14.
template <typename... Visitors>
Overloaded(Visitors...) -> Overloaded<Visitors...>;

}  // namespace kavach
