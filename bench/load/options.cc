#include "bench/load/options.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <fstream>
#include <map>
#include <string>
#include <string_view>

#include "engine/bounds.h"

namespace kavach::bench {
namespace {

// `http://address[:port][/path]`; the address is an IPv4 one, since name resolution is not what is measured.
std::string parse_url(std::string_view url, LoadOptions& options) {
  constexpr std::string_view kScheme = "http://";
  if (!url.starts_with(kScheme)) return "--url: must begin with http://";
  url.remove_prefix(kScheme.size());
  const std::size_t slash = url.find('/');
  if (slash != std::string_view::npos) options.path = url.substr(slash);
  const std::string_view authority = url.substr(0, slash);
  const std::size_t colon = authority.find(':');
  options.address = authority.substr(0, colon);
  options.port = 80;
  if (colon == std::string_view::npos) return {};
  const std::string_view port = authority.substr(colon + 1);
  const auto parsed = std::from_chars(port.data(), port.data() + port.size(), options.port);
  if (parsed.ec != std::errc() || parsed.ptr != port.data() + port.size()) return "--url: bad port";
  return {};
}

}  // namespace

bool read_options(int argc, char** argv, LoadOptions& options, int& exit_code) {
  CLI::App app{
      "kavach-load: sends batches of usage events over keep-alive connections and checks every answer.\n"
      "Closed loop by default: each connection sends its next batch when the last one was answered, which "
      "finds\n"
      "the peak. With --rate, batches are due at fixed times and latency counts from then, also when no\n"
      "connection was free: what a client would have waited. Exits with 1 when any answer was wrong."};
  std::string url = "http://127.0.0.1:8000/v1/ingest";
  app.add_option("--url", url, "Where to send; an IPv4 address")->capture_default_str();
  app.add_option("--key", options.keys, "API key; several are used in turn");
  std::string key_file;
  app.add_option("--key-file", key_file, "API keys, too: one a line")->check(CLI::ExistingFile);
  CLI::Option* const key_per_connection =
      app.add_flag("--key-per-connection", options.key_per_connection,
                   "Each connection sends with one of the keys, as an SDK's process does");
  app.add_option("--connections", options.connections, "Connections")
      ->check(CLI::Range(1U, 60'000U))
      ->capture_default_str();
  app.add_option("--events", options.events, "Events of a batch")
      ->check(CLI::Range(1U, bounds::kBatchEventsMax))
      ->capture_default_str();
  app.add_option("--pipeline", options.pipeline, "Requests under way on one connection")
      ->check(CLI::Range(1U, 1024U))
      ->capture_default_str();
  app.add_option("--format", options.format,
                 "sdk: JSON, as the Python SDK sends it; otlp: the same events as log records of OTLP/HTTP,\n"
                 "in protobuf, which are answered 200")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, Format>{{"sdk", Format::kSdk}, {"otlp", Format::kOtlp}}));
  app.add_flag("--gzip", options.gzip, "Send gzip bodies")->excludes(key_per_connection);
  app.add_option(
         "--gzip-bodies", options.gzip_bodies,
         "Distinct bodies, compressed before the run. Each is sent once per key, since what is sent again\n"
         "is a duplicate; when all were sent the run ends early")
      ->check(CLI::Range(1U, 1'000'000U))
      ->capture_default_str();
  app.add_option("--rate", options.rate, "Requests per second; 0: closed loop")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--warmup", options.warmup_s, "Seconds that are not measured")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--duration", options.duration_s, "Seconds that are measured")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--requests", options.requests,
                 "Send exactly so many, without a warm-up, instead of --duration");
  app.add_option("--timeout", options.timeout_s, "Seconds that an answer may take")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag(
      "--spin", options.spin,
      "Never sleep, on a core of its own: a server on the same machine then does not pay for waking it");
  app.add_option("--server-pid", options.server_pids,
                 "Report the CPU time of this process's threads, too; of several processes if given again");
  app.add_flag("--json", options.json, "One JSON object instead of text");
  try {
    app.parse(argc, argv);
    if (const std::string problem = parse_url(url, options); !problem.empty()) {
      throw CLI::ValidationError(problem);
    }
    if (std::ifstream lines(key_file); lines) {
      for (std::string line; std::getline(lines, line);) options.keys.push_back(line);
    }
    if (options.keys.empty()) throw CLI::ValidationError("--key or --key-file is required");
  } catch (const CLI::ParseError& error) {
    exit_code = app.exit(error) == 0 ? 0 : 2;
    return false;
  }
  if (options.requests > 0) options.warmup_s = 0;
  return true;
}

}  // namespace kavach::bench
