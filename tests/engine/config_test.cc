// Config: every way to set a setting, and every way to get one wrong, with the place and what would be right.
#include "engine/config.h"

#include "tests/support/temp_folder.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <fstream>
#include <set>
#include <string>
#include <vector>

namespace kavach {
namespace {

using Environment = std::vector<std::string>;

Result<Config> parsed(std::string_view toml, const Environment& environment = {}) {
  return parse_config(toml, "k.toml", environment);
}

// All problems, one per line; empty when there are none.
std::string problems(std::string_view toml, const Environment& environment = {}) {
  const auto config = parsed(toml, environment);
  return config ? "" : config.error().message;
}

// A value other than the default, as TOML.
std::string other_value(const SettingInfo& setting) {
  if (setting.type == "boolean") return setting.default_text == "true" ? "false" : "true";
  if (setting.key == "http.address") return "\"::1\"";
  if (setting.key == "redis.url") return "\"redis://other\"";
  if (setting.key == "store.url") return "\"postgres://other\"";
  if (setting.type == "string") return "\"other \\\"\\\\ é\"";
  if (setting.type == "integer") {
    const std::string max = setting.range_text.substr(setting.range_text.find("..") + 2);
    return max == setting.default_text ? std::to_string(std::stoll(max) - 1) : max;
  }
  const std::string last = setting.type.substr(setting.type.rfind('|') + 1);
  const std::string first = setting.type.substr(0, setting.type.find('|'));
  return '"' + ('"' + last + '"' == setting.default_text ? first : last) + '"';
}

TEST_CASE("nothing set means all defaults, which are valid") {
  const auto config = parsed("");
  REQUIRE(config.has_value());
  CHECK(diff_config(*config, default_config()).empty());
  CHECK(config->http.port == 8000);
  CHECK(config->http.address == "127.0.0.1");
  CHECK(config->engine.pin);
  CHECK(config->journal.on_corruption == "stop");
  CHECK(load_config("", {}).has_value());
}

TEST_CASE("each kind of setting is taken from its table") {
  const auto config = parsed(
      "[engine]\npin = false\nshards = 3\n"
      "[http]\naddress = '::1'\n"
      "[log]\nlevel = \"debug\"\n");
  REQUIRE(config.has_value());
  CHECK_FALSE(config->engine.pin);
  CHECK(config->engine.shards == 3);
  CHECK(config->http.address == "::1");
  CHECK(config->log.level == "debug");
  CHECK(diff_config(default_config(), *config).size() == 4);
}

TEST_CASE("the printed config reads back to the same, for the defaults and for other values of everything") {
  const Config defaults = default_config();
  const auto read_back = parsed(print_config(defaults));
  REQUIRE(read_back.has_value());
  CHECK(diff_config(defaults, *read_back).empty());

  std::string toml;
  for (const SettingInfo& setting : setting_table())
    toml += setting.key + " = " + other_value(setting) + "\n";
  const auto others = parsed(toml);
  REQUIRE_MESSAGE(others.has_value(), problems(toml));
  CHECK(diff_config(defaults, *others).size() == setting_table().size());
  const auto others_back = parsed(print_config(*others, Secrets::kShown));
  REQUIRE(others_back.has_value());
  CHECK(diff_config(*others, *others_back).empty());
}

TEST_CASE("the table describes every setting once, and each is explained where the config is printed") {
  std::set<std::string> keys;
  std::set<std::string> variables;
  const std::string printed = print_config(default_config());
  for (const SettingInfo& setting : setting_table()) {
    CAPTURE(setting.key);
    CHECK(keys.insert(setting.key).second);
    CHECK(variables.insert(setting.env_name).second);
    CHECK_FALSE(setting.help.empty());
    CHECK((setting.type == "integer") == !setting.range_text.empty());
    CHECK(printed.find("# " + setting.help) != std::string::npos);
    CHECK(settings_markdown().find("| `" + setting.key + "` |") != std::string::npos);
  }
}

TEST_CASE("an unknown key is told with file, line, column and the nearest known one") {
  CHECK(problems("[http]\nprot = 1\n") == "k.toml:2:1: http.prot: no such setting; did you mean http.port?");
  CHECK(problems("[http]\n  porrt = 1\n").starts_with("k.toml:2:3: http.porrt: no such setting"));
  // The right name in the wrong table.
  CHECK(problems("[quota]\nlevel = 1\n") ==
        "k.toml:2:1: quota.level: no such setting; did you mean log.level?");
  CHECK(problems("[http]\nsomething_else_entirely = 1\n") ==
        "k.toml:2:1: http.something_else_entirely: no such setting");
  CHECK(problems("port = 1\n") == "k.toml:1:1: port: no such setting; did you mean http.port?");
  CHECK(problems("[htttp]\n") == "k.toml:1:2: htttp: no such table; did you mean http?");
  CHECK(problems("[elsewhere]\n") ==
        "k.toml:1:2: elsewhere: no such table; the tables are node, engine, http, auth, ingest, quota, "
        "redis, journal, store, kafka, writer, control, billing, pricing, alerts, mail, log");
  CHECK(problems("http = 5\n") == "k.toml:1:8: http: must be a table, written [http]");
}

TEST_CASE("a value out of its range is told with the range and its unit") {
  CHECK(problems("[http]\nport = 70000\n") == "k.toml:2:8: http.port: 70000 is out of range 0..65535");
  CHECK(problems("[auth]\npoll_ms = 9\n") == "k.toml:2:11: auth.poll_ms: 9 is out of range 10..1000 ms");
  for (const SettingInfo& setting : setting_table()) {
    if (setting.type != "integer") continue;
    CAPTURE(setting.key);
    const std::size_t dots = setting.range_text.find("..");
    const std::int64_t below = std::stoll(setting.range_text.substr(0, dots)) - 1;
    const std::int64_t above = std::stoll(setting.range_text.substr(dots + 2)) + 1;
    for (const std::int64_t value : {below, above}) {
      const std::string found = problems(fmt::format("{} = {}\n", setting.key, value));
      CHECK(found.find(fmt::format("{}: {} is out of range {}", setting.key, value, setting.range_text)) !=
            std::string::npos);
    }
  }
}

TEST_CASE("a value of the wrong type is told with the right one") {
  CHECK(problems("[http]\nport = \"8000\"\n") ==
        "k.toml:2:8: http.port: must be an integer 0..65535, not a string");
  CHECK(problems("[http]\nport = 8e3\n") ==
        "k.toml:2:8: http.port: must be an integer 0..65535, not a number with a fraction or exponent");
  CHECK(problems("[engine]\npin = 1\n") == "k.toml:2:7: engine.pin: must be true or false, not an integer");
  CHECK(problems("[store]\npath = [\"x\"]\n") ==
        "k.toml:2:8: store.path: must be a string in quotes, not an array");
  CHECK(problems("[log]\nlevel = false\n") ==
        "k.toml:2:9: log.level: must be one of \"debug\", \"info\", \"warning\", \"error\", \"off\", not a "
        "boolean");
  CHECK(problems("[log]\nlevel = 2026-01-01\n").ends_with("not a date or time"));
  CHECK(problems("[log]\nlevel = {}\n").ends_with("not a table"));
}

TEST_CASE("a text that says nothing sensible is refused") {
  CHECK(problems("[log]\nlevel = \"loud\"\n") ==
        "k.toml:2:9: log.level: \"loud\" is not one of debug, info, warning, error, off");
  CHECK(problems("[http]\naddress = \"localhost\"\n") ==
        "k.toml:2:11: http.address: \"localhost\" is no IP address such as 127.0.0.1 or ::1 (names are not "
        "looked up)");
  CHECK(problems("[store]\npath = \"\"\n") == "k.toml:2:8: store.path: must not be empty");
  CHECK(problems("[store]\npath = \"a\\nb\"\n") ==
        "k.toml:2:8: store.path: must be UTF-8 text without control characters");
  CHECK(problems("", {"KAVACH_STORE_PATH=\xff"}) ==
        "environment: KAVACH_STORE_PATH: store.path: must be UTF-8 text without control characters");
}

TEST_CASE("what is no TOML is told with its place") {
  CHECK(problems("[http\nport = 1\n").starts_with("k.toml:1:6: not valid TOML: "));
  CHECK(problems("[http]\nport = 1\nport = 2\n").starts_with("k.toml:3:"));
  CHECK(problems("[http]\nport = \n").starts_with("k.toml:2:"));
  CHECK(problems("\xff").starts_with("k.toml:1:1: not valid TOML: "));
}

TEST_CASE("a variable of the environment overrides the file") {
  const auto config =
      parsed("[http]\nport = 1\n", {"PATH=/bin", "KAVACH_HTTP_PORT=2", "KAVACH_ENGINE_PIN=false",
                                    "KAVACH_LOG_LEVEL=error", "KAVACH_STORE_PATH=a = \"b\\\""});
  REQUIRE(config.has_value());
  CHECK(config->http.port == 2);
  CHECK_FALSE(config->engine.pin);
  CHECK(config->log.level == "error");
  CHECK(config->store.path == "a = \"b\\\"");
  const auto read_back = parsed(print_config(*config));
  REQUIRE(read_back.has_value());
  CHECK(diff_config(*config, *read_back).empty());
}

TEST_CASE("a variable's value is checked as the file's is") {
  CHECK(problems("", {"KAVACH_HTTP_PORT=70000"}) ==
        "environment: KAVACH_HTTP_PORT: http.port: 70000 is out of range 0..65535");
  for (const char* value : {"", "x", "1x", " 1", "1 ", "+1", "1.0", "0x10", "99999999999999999999"}) {
    CAPTURE(value);
    CHECK(problems("", {std::string("KAVACH_HTTP_PORT=") + value}) ==
          fmt::format("environment: KAVACH_HTTP_PORT: http.port: \"{}\" is no integer 0..65535", value));
  }
  CHECK(problems("", {"KAVACH_ENGINE_PIN=1"}) ==
        "environment: KAVACH_ENGINE_PIN: engine.pin: \"1\" is neither true nor false");
  CHECK(problems("", {"KAVACH_STORE_PATH="}) ==
        "environment: KAVACH_STORE_PATH: store.path: must not be empty");
}

TEST_CASE("a variable with our prefix that is no setting is an error; the test suite's are not") {
  CHECK(problems("", {"KAVACH_HTTP_PROT=1"}) ==
        "environment: KAVACH_HTTP_PROT: no such setting; did you mean KAVACH_HTTP_PORT?");
  CHECK(problems("", {"KAVACH_=1"}).starts_with("environment: KAVACH_: no such setting"));
  CHECK(problems("",
                 {"KAVACH_TEST_BUILD=x", "AGENTKAVACH_HTTP_PORT=1", "kavach_http_port=1", "KAVACH_HTTP_PORT"})
            .empty());
}

TEST_CASE("a message is one line, whatever was written") {
  const std::string found = problems("[http]\n\"a\\nb\\u001b[31m\" = 1\n");
  CHECK(found == R"(k.toml:2:1: http.a\x0ab\x1b[31m: no such setting)");
  const std::string long_name(5000, 'x');
  CHECK(problems("[http]\n" + long_name + " = 1\n").size() < 200);
}

TEST_CASE("all problems are reported at once, from all sources, the relations last") {
  const std::string found =
      problems("[http]\nport = 70000\nprot = 1\n[log]\nlevel = \"loud\"\n[journal]\nsegment_bytes = 10000\n",
               {"KAVACH_ENGINE_PIN=maybe", "KAVACH_NOTHING_LIKE_IT=1"});
  CHECK(found ==
        "k.toml:2:8: http.port: 70000 is out of range 0..65535\n"
        "k.toml:3:1: http.prot: no such setting; did you mean http.port?\n"
        "k.toml:5:9: log.level: \"loud\" is not one of debug, info, warning, error, off\n"
        "environment: KAVACH_ENGINE_PIN: engine.pin: \"maybe\" is neither true nor false\n"
        "environment: KAVACH_NOTHING_LIKE_IT: no such setting\n"
        "k.toml:7:17: journal.segment_bytes: 10000 must be at least 10489856: "
        "http.body_bytes_max plus 4096 bytes of framing");
}

TEST_CASE("settings that do not go together are refused where they were set") {
  const auto about = [](std::string_view toml, std::string_view start) {
    const std::string found = problems(toml);
    CAPTURE(found);
    CHECK(found.starts_with(start));
    CHECK(found.find('\n') == std::string::npos);
  };
  about("[http]\nbody_bytes_max = 67_108_864\n[journal]\nin_flight_bytes_max = 67_108_864\n",
        "journal.segment_bytes: 67108864 must be at least 67112960: http.body_bytes_max plus 4096 bytes");
  about("[journal]\nin_flight_bytes_max = 8_388_608\n",
        "k.toml:2:23: journal.in_flight_bytes_max: 8388608 must be at least 10485760: http.body_bytes_max");
  about("[journal]\ngroup_bytes_max = 67_108_865\n",
        "journal.in_flight_bytes_max: 67108864 must be at least 67108865: journal.group_bytes_max");
  about("[journal]\nbacklog_bytes_max = 134_217_727\n",
        "k.toml:2:21: journal.backlog_bytes_max: 134217727 must be at least 134217728: two segments");
  about("[engine]\nshards = 8\n[http]\nconnections_max = 7\n",
        "k.toml:4:19: http.connections_max: 7 must be at least 8: one for each of engine.shards");
  about("[quota]\ndedup_keys_max = 999\n",
        "k.toml:2:18: quota.dedup_keys_max: 999 must be at least 1000: the keys of one batch");
  about("[quota]\ndedup_keys_max = 2000\ndedup_keys_expected = 2001\n",
        "k.toml:2:18: quota.dedup_keys_max: 2000 must be at least 2001: quota.dedup_keys_expected");
  about("[http]\ntls_certificate_file = \"c.pem\"\n",
        "k.toml:2:24: http.tls_certificate_file: needs http.tls_key_file beside it");
  about("[http]\ntls_key_file = \"k.pem\"\n",
        "k.toml:2:16: http.tls_key_file: needs http.tls_certificate_file beside it");
  CHECK(problems("[http]\ntls_key_file = \"k\"\ntls_certificate_file = \"c\"\n").empty());
}

TEST_CASE("a reload takes the live settings and leaves all others") {
  const Config running = *parsed("[http]\nport = 1\nheader_timeout_ms = 1\n[log]\nlevel = \"error\"\n");
  const Config wanted = *parsed("[http]\nport = 2\nheader_timeout_ms = 2\n[log]\nformat = \"json\"\n");
  const auto merged = merge_live(running, wanted);
  REQUIRE(merged.has_value());
  CHECK(merged->http.port == 1);
  CHECK(merged->http.header_timeout_ms == 2);
  CHECK(merged->log.level == "info");
  CHECK(merged->log.format == "text");
}

TEST_CASE("a reload whose live settings do not go with the running ones is refused") {
  const Config running = *parsed("[http]\nbody_bytes_max = 1024\n[journal]\nsegment_bytes = 8192\n");
  const auto merged = merge_live(running, default_config());
  REQUIRE_FALSE(merged.has_value());
  CHECK(merged.error().message.find("journal.segment_bytes") != std::string::npos);
}

TEST_CASE("what differs is listed in the table's order, spelled as TOML, with its reload rule") {
  const Config from = default_config();
  const Config to = *parsed("[log]\nlevel = \"debug\"\n[engine]\npin = false\n[http]\nport = 1\n");
  const auto changes = diff_config(from, to);
  REQUIRE(changes.size() == 3);
  CHECK(changes[0].key == "engine.pin");
  CHECK(changes[0].from == "true");
  CHECK(changes[0].to == "false");
  CHECK(changes[1].key == "http.port");
  CHECK(changes[1].reload == Reload::kRestart);
  CHECK(changes[2].key == "log.level");
  CHECK(changes[2].from == "\"info\"");
  CHECK(changes[2].to == "\"debug\"");
  CHECK(changes[2].reload == Reload::kLive);
}

TEST_CASE("a file is read, and its name stands in every message") {
  const test::TempFolder folder;
  const std::string path = folder.file("k.toml");
  std::ofstream(path) << "[http]\nport = 1234\n";
  const auto config = load_config(path, {"KAVACH_LOG_LEVEL=off"});
  REQUIRE(config.has_value());
  CHECK(config->http.port == 1234);
  CHECK(config->log.level == "off");

  std::ofstream(path) << "[http]\nport = -1\n";
  CHECK(load_config(path, {}).error().message == path + ":2:8: http.port: -1 is out of range 0..65535");
}

TEST_CASE("a file that is missing, a folder or far too long is refused by name") {
  const test::TempFolder folder;
  const std::string path = folder.file("k.toml");
  CHECK(load_config(path, {}).error().message == path + ": cannot be opened: No such file or directory");
  CHECK(load_config(folder.path(), {})
            .error()
            .message.starts_with(folder.path().string() + ": cannot be read: "));
  std::ofstream(path) << std::string((1 << 20) + 1, '#');
  CHECK(load_config(path, {}).error().message == path + ": is longer than 1048576 bytes, so it is no config");
}

}  // namespace
}  // namespace kavach
