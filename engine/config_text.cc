// Writing configs: the table of settings, the defaults, a whole config as TOML, and what two configs differ
// in.
#include <fmt/format.h>

#include "engine/config.h"
#include "engine/settings.h"

namespace kavach {
namespace {

std::string type_text(const Setting& setting) {
  return std::visit(
      Overloaded{
          [](const IntegerSetting&) { return std::string("integer"); },
          [](const BooleanSetting&) { return std::string("boolean"); },
          [](const TextSetting&) { return std::string("string"); },
          [](const ChoiceSetting& kind) { return fmt::format("{}", fmt::join(kind.choices, "|")); },
      },
      setting.kind);
}

std::string range_text(const Setting& setting) {
  const auto* integer = std::get_if<IntegerSetting>(&setting.kind);
  return integer == nullptr ? std::string() : fmt::format("{}..{}", integer->min, integer->max);
}

// What a value may be, for a cell of a Markdown table (where a bar would end the cell).
std::string values_text(const Setting& setting) {
  if (const auto* choice = std::get_if<ChoiceSetting>(&setting.kind)) {
    return fmt::format("`{}`", fmt::join(choice->choices, "`, `"));
  }
  const std::string range = range_text(setting);
  return fmt::format("{}{}{}{}{}", type_text(setting), range.empty() ? "" : " ", range,
                     setting.unit.empty() ? "" : " ", setting.unit);
}

std::string_view reload_text(Reload reload) {
  return reload == Reload::kLive ? "live" : "restart";
}

// `redis://user:password@host` as `redis://***@host`, also when the password holds a raw @ or /.
std::string masked_url(const std::string& url) {
  const std::size_t scheme = url.find("://");
  const std::size_t at = url.rfind('@');
  if (at == std::string::npos) return url;
  return (scheme < at ? url.substr(0, scheme + 3) : std::string()) + "***" + url.substr(at);
}

std::string masked(TextSetting::Rule rule, const std::string& text) {
  if (rule == TextSetting::Rule::kRedisUrl || rule == TextSetting::Rule::kPostgresUrl)
    return masked_url(text);
  return rule == TextSetting::Rule::kSecret && !text.empty() ? "***" : text;
}

}  // namespace

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out.push_back('\\');
    out.push_back(c);
  }
  out.push_back('"');
  return out;
}

std::string value_text(const Setting& setting, const Config& config, Secrets secrets) {
  return std::visit(Overloaded{
                        [&](const IntegerSetting& kind) { return fmt::format("{}", kind.field.in(config)); },
                        [&](const BooleanSetting& kind) { return fmt::format("{}", kind.field.in(config)); },
                        [&](const TextSetting& kind) {
                          const std::string& text = kind.field.in(config);
                          return quoted(secrets == Secrets::kMasked ? masked(kind.rule, text) : text);
                        },
                        [&](const ChoiceSetting& kind) { return quoted(kind.field.in(config)); },
                    },
                    setting.kind);
}

Config default_config() {
  Config config{};
  for (const Setting& setting : settings()) {
    std::visit([&](const auto& kind) { kind.field.in(config) = kind.initial; }, setting.kind);
  }
  return config;
}

std::vector<SettingInfo> setting_table() {
  const Config defaults = default_config();
  std::vector<SettingInfo> table;
  for (const Setting& setting : settings()) {
    table.push_back({.key = std::string(setting.key),
                     .type = type_text(setting),
                     .default_text = value_text(setting, defaults, Secrets::kMasked),
                     .range_text = range_text(setting),
                     .unit = std::string(setting.unit),
                     .reload = setting.reload,
                     .help = std::string(setting.help),
                     .env_name = setting.env_name()});
  }
  return table;
}

std::string settings_markdown() {
  const Config defaults = default_config();
  std::string out = "| setting | values | default | reload | meaning |\n| --- | --- | --- | --- | --- |\n";
  for (const Setting& setting : settings()) {
    out += fmt::format("| `{}` | {} | `{}` | {} | {} |\n", setting.key, values_text(setting),
                       value_text(setting, defaults, Secrets::kMasked), reload_text(setting.reload),
                       setting.help);
  }
  return out;
}

std::string print_config(const Config& config, Secrets secrets) {
  std::string out;
  std::string_view table;
  for (const Setting& setting : settings()) {
    if (setting.table() != table) {
      table = setting.table();
      out += fmt::format("{}[{}]\n", out.empty() ? "" : "\n", table);
    }
    out += fmt::format("# {} ({}; {})\n{} = {}\n", setting.help, values_text(setting),
                       reload_text(setting.reload), setting.name(), value_text(setting, config, secrets));
  }
  return out;
}

std::vector<SettingChange> diff_config(const Config& from, const Config& to) {
  std::vector<SettingChange> changes;
  for (const Setting& setting : settings()) {
    // Two passwords differ, but look the same.
    if (value_text(setting, from, Secrets::kShown) == value_text(setting, to, Secrets::kShown)) continue;
    changes.push_back({std::string(setting.key), value_text(setting, from, Secrets::kMasked),
                       value_text(setting, to, Secrets::kMasked), setting.reload});
  }
  return changes;
}

}  // namespace kavach
