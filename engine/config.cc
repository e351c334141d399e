// Reading a config: TOML and environment into a Config, with every problem found on the way.
#include "engine/config.h"

#include "engine/settings.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <fstream>
#include <iterator>
#include <map>
#include <numeric>
#include <optional>

namespace kavach {
namespace {

constexpr std::string_view kEnvPrefix = "KAVACH_";
constexpr std::string_view kTestEnvPrefix = "KAVACH_TEST_";
constexpr std::string_view kRedisSchemes[] = {"redis://", "rediss://", "unix://"};
// Room in a segment for its header, and for a frame's header and padding, beside the largest body.
constexpr std::int64_t kFrameOverheadBytes = 4096;
// Far above any config; a wrong path should not read a database into memory.
constexpr std::size_t kFileBytesMax = std::size_t{1} << 20;

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t substituted = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({substituted, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

// `; did you mean x?` for the known word nearest to `word`, empty when none is near.
std::string suggestion(std::string_view word, std::span<const std::string> known) {
  // Farther apart than a third of its letters, a word is another word. Long words cost and mean nothing.
  constexpr std::size_t kWordCharsMax = 64;
  if (word.size() > kWordCharsMax) return {};
  std::size_t nearest_distance = std::max<std::size_t>(2, word.size() / 3) + 1;
  std::string_view nearest;
  for (const std::string& candidate : known) {
    const std::size_t distance = edit_distance(word, candidate);
    if (distance >= nearest_distance) continue;
    nearest_distance = distance;
    nearest = candidate;
  }
  return nearest.empty() ? std::string() : fmt::format("; did you mean {}?", nearest);
}

// For an unknown `table.name`: the nearest key, or the same name in another table.
std::string key_suggestion(std::string_view key) {
  std::vector<std::string> known;
  for (const Setting& setting : settings()) known.emplace_back(setting.key);
  if (std::string near = suggestion(key, known); !near.empty()) return near;
  const std::string_view name = key.substr(key.rfind('.') + 1);
  for (const Setting& setting : settings()) {
    if (setting.name() == name) return fmt::format("; did you mean {}?", setting.key);
  }
  return {};
}

std::string table_suggestion(std::string_view table) {
  std::vector<std::string> known;
  for (const Setting& setting : settings()) {
    if (known.empty() || known.back() != setting.table()) known.emplace_back(setting.table());
  }
  if (std::string near = suggestion(table, known); !near.empty()) return near;
  return fmt::format("; the tables are {}", fmt::join(known, ", "));
}

// A name or value from outside, fit for one line of a message.
std::string shown(std::string_view text) {
  constexpr std::size_t kShownBytes = 80;
  std::string out;
  for (const char c : text.substr(0, kShownBytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out.push_back(c);
    }
  }
  if (text.size() > kShownBytes) out += "...";
  return out;
}

bool is_ip_address(const std::string& text) {
  std::array<unsigned char, sizeof(in6_addr)> ignored{};
  return inet_pton(AF_INET, text.c_str(), ignored.data()) == 1 ||
         inet_pton(AF_INET6, text.c_str(), ignored.data()) == 1;
}

bool has_control_characters(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 0x20 || byte == 0x7f;
  });
}

// What print_config() would write must be TOML; a file's strings always are, the environment's may be any
// bytes.
bool is_toml_text(std::string_view text) {
  try {
    return !toml::parse(fmt::format("text = {}", quoted(text))).empty();
  } catch (const toml::parse_error&) {
    return false;
  }
}

// Gathers settings and problems from all sources; then checks the whole.
class Reader {
 public:
  explicit Reader(std::string_view file_name) : file_name_(file_name) {}

  void read_toml(std::string_view text);
  void read_environment(const std::vector<std::string>& environment);
  void check_relations();
  Result<Config> finish() &&;

 private:
  // Where a value was written, as the beginning of a message.
  std::string place(const toml::source_region& region) const {
    return fmt::format("{}:{}:{}", file_name_, region.begin.line, region.begin.column);
  }
  void problem(std::string_view where, std::string_view what) {
    problems_.push_back(where.empty() ? std::string(what) : fmt::format("{}: {}", where, what));
  }
  // A problem with a setting's value, said at the place where it was set.
  void problem_with(std::string_view key, std::string_view what);

  void read_table(const toml::key& name, const toml::node& node);
  void read_value(const Setting& setting, const toml::node& node);
  void read_variable(const Setting& setting, std::string_view name, std::string_view value);
  void read_aliases(const std::vector<std::string>& environment);
  // Return false (with the problem noted) when the value is not allowed.
  bool set_integer(const Setting& setting, const IntegerSetting& kind, std::int64_t value);
  bool set_text(const Setting& setting, const TextSetting& kind, std::string value);
  bool set_choice(const Setting& setting, const ChoiceSetting& kind, std::string value);

  std::string file_name_;
  Config config_ = default_config();
  std::map<std::string_view, std::string> places_;  // of the settings that were set
  std::vector<std::string> problems_;
};

void Reader::problem_with(std::string_view key, std::string_view what) {
  const auto place = places_.find(key);
  problem(place == places_.end() ? "" : place->second, fmt::format("{}: {}", key, what));
}

bool Reader::set_integer(const Setting& setting, const IntegerSetting& kind, std::int64_t value) {
  if (value < kind.min || value > kind.max) {
    problem_with(setting.key, fmt::format("{} is out of range {}..{}{}{}", value, kind.min, kind.max,
                                          setting.unit.empty() ? "" : " ", setting.unit));
    return false;
  }
  kind.field.in(config_) = value;
  return true;
}

bool Reader::set_text(const Setting& setting, const TextSetting& kind, std::string value) {
  if (has_control_characters(value) || !is_toml_text(value)) {
    problem_with(setting.key, "must be UTF-8 text without control characters");
    return false;
  }
  switch (kind.rule) {
    case TextSetting::Rule::kAny:
    case TextSetting::Rule::kSecret:
      break;
    case TextSetting::Rule::kNotEmpty:
      if (value.empty()) {
        problem_with(setting.key, "must not be empty");
        return false;
      }
      break;
    case TextSetting::Rule::kIpAddress:
      if (!is_ip_address(value)) {
        problem_with(setting.key,
                     fmt::format("\"{}\" is no IP address such as 127.0.0.1 or ::1 (names are not "
                                 "looked up)",
                                 shown(value)));
        return false;
      }
      break;
    case TextSetting::Rule::kRedisUrl:
      // The rest is checked where it is used. The message does not hold the value: a password may be in it.
      if (!value.empty() &&
          std::none_of(std::begin(kRedisSchemes), std::end(kRedisSchemes),
                       [&](std::string_view scheme) { return value.starts_with(scheme); })) {
        problem_with(setting.key, fmt::format("must begin with {}", fmt::join(kRedisSchemes, ", ")));
        return false;
      }
      break;
    case TextSetting::Rule::kPostgresUrl:
      if (!value.empty() && !value.starts_with("postgres://") && !value.starts_with("postgresql://")) {
        problem_with(setting.key, "must begin with postgres://, postgresql://");
        return false;
      }
      // There only the part before the host is known to be secret.
      if (value.find("password=") != std::string::npos) {
        problem_with(setting.key,
                     "the password belongs before the host: postgres://user:password@host/database");
        return false;
      }
      break;
  }
  kind.field.in(config_) = std::move(value);
  return true;
}

bool Reader::set_choice(const Setting& setting, const ChoiceSetting& kind, std::string value) {
  if (std::find(kind.choices.begin(), kind.choices.end(), value) == kind.choices.end()) {
    problem_with(setting.key,
                 fmt::format("\"{}\" is not one of {}", shown(value), fmt::join(kind.choices, ", ")));
    return false;
  }
  kind.field.in(config_) = std::move(value);
  return true;
}

void Reader::read_toml(std::string_view text) {
  try {
    const toml::table root = toml::parse(text);
    for (const auto& [name, node] : root) read_table(name, node);
  } catch (const toml::parse_error& error) {
    problem(place(error.source()), fmt::format("not valid TOML: {}", shown(error.description())));
  }
}

void Reader::read_table(const toml::key& name, const toml::node& node) {
  const bool known = std::any_of(settings().begin(), settings().end(),
                                 [&](const Setting& setting) { return setting.table() == name.str(); });
  if (!known) {
    // A key written above the first [table] line is the usual cause.
    problem(place(name.source()),
            node.is_table()
                ? fmt::format("{}: no such table{}", shown(name.str()), table_suggestion(name.str()))
                : fmt::format("{}: no such setting{}", shown(name.str()), key_suggestion(name.str())));
    return;
  }
  const toml::table* table = node.as_table();
  if (table == nullptr) {
    problem(place(node.source()), fmt::format("{0}: must be a table, written [{0}]", name.str()));
    return;
  }
  for (const auto& [key, value] : *table) {
    const std::string full = fmt::format("{}.{}", name.str(), key.str());
    const auto setting = std::find_if(settings().begin(), settings().end(),
                                      [&](const Setting& candidate) { return candidate.key == full; });
    if (setting == settings().end()) {
      problem(place(key.source()), fmt::format("{}: no such setting{}", shown(full), key_suggestion(full)));
    } else {
      read_value(*setting, value);
    }
  }
}

std::string_view type_name(toml::node_type type) {
  switch (type) {
    case toml::node_type::none:
      return "nothing";
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "an array";
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "an integer";
    case toml::node_type::floating_point:
      return "a number with a fraction or exponent";
    case toml::node_type::boolean:
      return "a boolean";
    case toml::node_type::date:
    case toml::node_type::time:
    case toml::node_type::date_time:
      return "a date or time";
  }
  return "something else";
}

void Reader::read_value(const Setting& setting, const toml::node& node) {
  places_[setting.key] = place(node.source());
  const auto wrong_type = [&](std::string_view right) {
    problem_with(setting.key, fmt::format("must be {}, not {}", right, type_name(node.type())));
  };
  std::visit(Overloaded{
                 [&](const IntegerSetting& kind) {
                   const auto* value = node.as_integer();
                   if (value == nullptr)
                     return wrong_type(fmt::format("an integer {}..{}", kind.min, kind.max));
                   set_integer(setting, kind, value->get());
                 },
                 [&](const BooleanSetting& kind) {
                   const auto* value = node.as_boolean();
                   if (value == nullptr) return wrong_type("true or false");
                   kind.field.in(config_) = value->get();
                 },
                 [&](const TextSetting& kind) {
                   const auto* value = node.as_string();
                   if (value == nullptr) return wrong_type("a string in quotes");
                   set_text(setting, kind, value->get());
                 },
                 [&](const ChoiceSetting& kind) {
                   const auto* value = node.as_string();
                   if (value == nullptr) {
                     return wrong_type(fmt::format("one of \"{}\"", fmt::join(kind.choices, "\", \"")));
                   }
                   set_choice(setting, kind, value->get());
                 },
             },
             setting.kind);
}

void Reader::read_aliases(const std::vector<std::string>& environment) {
  for (const Setting& setting : settings()) {
    for (const std::string_view alias : setting.env_aliases) {
      for (const std::string& entry : environment) {
        const std::size_t equals = entry.find('=');
        if (equals == std::string::npos || std::string_view(entry).substr(0, equals) != alias) continue;
        read_variable(setting, alias, std::string_view(entry).substr(equals + 1));
      }
    }
  }
}

void Reader::read_environment(const std::vector<std::string>& environment) {
  read_aliases(environment);
  for (const std::string& entry : environment) {
    const std::size_t equals = entry.find('=');
    const std::string_view name = std::string_view(entry).substr(0, equals);
    if (equals == std::string::npos || !name.starts_with(kEnvPrefix) || name.starts_with(kTestEnvPrefix))
      continue;
    const auto setting = std::find_if(settings().begin(), settings().end(),
                                      [&](const Setting& candidate) { return candidate.env_name() == name; });
    if (setting != settings().end()) {
      read_variable(*setting, name, std::string_view(entry).substr(equals + 1));
      continue;
    }
    std::vector<std::string> known;
    for (const Setting& candidate : settings()) known.push_back(candidate.env_name());
    problem("environment", fmt::format("{}: no such setting{}", shown(name), suggestion(name, known)));
  }
}

void Reader::read_variable(const Setting& setting, std::string_view name, std::string_view value) {
  places_[setting.key] = fmt::format("environment: {}", name);
  std::visit(
      Overloaded{
          [&](const IntegerSetting& kind) {
            std::int64_t number = 0;
            const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
            if (error != std::errc() || end != value.data() + value.size()) {
              problem_with(setting.key,
                           fmt::format("\"{}\" is no integer {}..{}", shown(value), kind.min, kind.max));
              return;
            }
            set_integer(setting, kind, number);
          },
          [&](const BooleanSetting& kind) {
            if (value != "true" && value != "false") {
              problem_with(setting.key, fmt::format("\"{}\" is neither true nor false", shown(value)));
              return;
            }
            kind.field.in(config_) = value == "true";
          },
          [&](const TextSetting& kind) { set_text(setting, kind, std::string(value)); },
          [&](const ChoiceSetting& kind) { set_choice(setting, kind, std::string(value)); },
      },
      setting.kind);
}

void Reader::check_relations() {
  const auto& [node, engine, http, auth, ingest, quota, redis, journal, store, kafka, writer, control,
               billing, pricing, alerts, mail, log] = config_;
  const auto at_least = [&](std::string_view key, std::int64_t value, std::int64_t least,
                            std::string_view why) {
    if (value < least) problem_with(key, fmt::format("{} must be at least {}: {}", value, least, why));
  };
  at_least("journal.segment_bytes", journal.segment_bytes, http.body_bytes_max + kFrameOverheadBytes,
           fmt::format("http.body_bytes_max plus {} bytes of framing", kFrameOverheadBytes));
  at_least("journal.in_flight_bytes_max", journal.in_flight_bytes_max, http.body_bytes_max,
           "http.body_bytes_max");
  at_least("journal.in_flight_bytes_max", journal.in_flight_bytes_max, journal.group_bytes_max,
           "journal.group_bytes_max");
  at_least("journal.backlog_bytes_max", journal.backlog_bytes_max, 2 * journal.segment_bytes,
           "two segments, since only whole ones are freed");
  at_least("http.connections_max", http.connections_max, engine.shards, "one for each of engine.shards");
  at_least("quota.dedup_keys_max", quota.dedup_keys_max, ingest.batch_events_max,
           "the keys of one batch (ingest.batch_events_max)");
  at_least("quota.dedup_keys_max", quota.dedup_keys_max, quota.dedup_keys_expected,
           "quota.dedup_keys_expected");
  at_least("redis.lease_ms", redis.lease_ms, 2 * redis.renew_ms,
           "two of redis.renew_ms, so that a lost renewal does not end a lease");
  at_least("redis.renew_ms", redis.renew_ms, redis.reply_timeout_ms, "redis.reply_timeout_ms");
  at_least("redis.lease_events_max", redis.lease_events_max, redis.lease_events_min,
           "redis.lease_events_min");
  at_least("kafka.in_flight_bytes_max", kafka.in_flight_bytes_max, 2 * kafka.record_bytes_max,
           "two records of kafka.record_bytes_max");
  const bool needs_user = kafka.security.starts_with("sasl");
  if (needs_user && (kafka.sasl_user.empty() || kafka.sasl_password.empty())) {
    problem_with("kafka.security", "needs kafka.sasl_user and kafka.sasl_password");
  }
  if (writer.enabled && kafka.brokers.empty()) {
    problem_with("writer.enabled", "needs kafka.brokers: the writer stores what is in Kafka");
  }
  if (mail.kind == "smtp" && !mail.smtp_url.starts_with("smtp://") &&
      !mail.smtp_url.starts_with("smtps://")) {
    problem_with("mail.smtp_url", "is where mail.kind = \"smtp\" sends to: smtp://host or smtps://host");
  }
  if (mail.smtp_url.find('@') != std::string::npos) {
    problem_with("mail.smtp_url", "must not hold a user: mail.smtp_user and mail.smtp_password do");
  }
  if (mail.kind == "resend" && mail.resend_api_key.empty()) {
    problem_with("mail.resend_api_key", "is needed by mail.kind = \"resend\"");
  }
  if (config_.store.kind == "postgres" && config_.store.url.empty()) {
    problem_with("store.url",
                 "is where store.kind = \"postgres\" keeps its data: postgres://user@host/database");
  }
  if (http.tls_certificate_file.empty() != http.tls_key_file.empty()) {
    const bool key_missing = http.tls_key_file.empty();
    problem_with(
        key_missing ? "http.tls_certificate_file" : "http.tls_key_file",
        fmt::format("needs {} beside it", key_missing ? "http.tls_key_file" : "http.tls_certificate_file"));
  }
}

Result<Config> Reader::finish() && {
  if (problems_.empty()) return std::move(config_);
  return failure(fmt::format("{}", fmt::join(problems_, "\n")));
}

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return failure(fmt::format("{}: cannot be opened: {}", path, error_text(errno)));
  std::string text(kFileBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) return failure(fmt::format("{}: cannot be read: {}", path, error_text(errno)));
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.size() > kFileBytesMax) {
    return failure(fmt::format("{}: is longer than {} bytes, so it is no config", path, kFileBytesMax));
  }
  return Result<std::string>(boost::system::in_place_value, std::move(text));
}

}  // namespace

Result<Config> parse_config(std::string_view toml, std::string_view name,
                            const std::vector<std::string>& environment) {
  Reader reader(name);
  reader.read_toml(toml);
  reader.read_environment(environment);
  reader.check_relations();
  return std::move(reader).finish();
}

Result<Config> load_config(const std::string& path, const std::vector<std::string>& environment) {
  if (path.empty()) return parse_config("", "", environment);
  Result<std::string> text = read_file(path);
  if (!text) return text.error();
  return parse_config(*text, path, environment);
}

Result<Config> merge_live(const Config& running, const Config& wanted) {
  Config merged = running;
  for (const Setting& setting : settings()) {
    if (setting.reload != Reload::kLive) continue;
    std::visit([&](const auto& kind) { kind.field.in(merged) = kind.field.in(wanted); }, setting.kind);
  }
  // Reading the merged config back checks the relations between its settings.
  return parse_config(print_config(merged, Secrets::kShown), "running and reloaded settings together", {});
}

}  // namespace kavach
