// kavach-pipeline: one round of a race between what carries events on behind the journal and the least that
// could carry the same rows (races.h). scripts/bench followers runs several, and brings the servers.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <exception>
#include <iostream>

#include "bench/pipeline/races.h"
#include "engine/log.h"

namespace kavach::bench {
namespace {

void print(const std::vector<Leg>& legs, std::size_t events, bool json) {
  const auto count = static_cast<double>(events);
  if (!json) {
    for (const Leg& leg : legs) {
      std::cout << fmt::format("{:8} {:9.0f} events/s, {:6.3f} us CPU per event\n", leg.name,
                               count / leg.seconds, leg.cpu_s * 1e6 / count);
    }
    return;
  }
  std::string text;
  for (const Leg& leg : legs) {
    text += fmt::format(R"({}"{}":{{"per_s":{:.1f},"cpu_us":{:.4f}}})", text.empty() ? "" : ",", leg.name,
                        count / leg.seconds, leg.cpu_s * 1e6 / count);
  }
  std::cout << '{' << text << "}\n";
}

int run(int argc, char** argv) {
  RaceOptions options;
  bool json = false;
  CLI::App app{
      "One round: events carried by Kavach and by the least that could carry them. Its files are in "
      "--directory, and go again.",
      "kavach-pipeline"};
  app.fallthrough();
  app.require_subcommand(1);
  CLI::App* const kafka = app.add_subcommand("kafka", "the Kafka shipper beside rd_kafka_producev()");
  CLI::App* const sqlite =
      app.add_subcommand("sqlite", "the SQL shipper into SQLite beside prepared inserts");
  CLI::App* const postgres = app.add_subcommand("postgres", "the writer's transactions into Postgres");
  app.add_option("--events", options.workload.events, "How many; whole batches")
      ->check(CLI::Range(std::size_t{1'000}, std::size_t{10'000'000}))
      ->capture_default_str();
  app.add_option("--batch-events", options.workload.batch_events, "Events of one batch")
      ->check(CLI::Range(std::size_t{1}, std::size_t{1'000}))
      ->capture_default_str();
  app.add_option("--orgs", options.workload.orgs, "Organizations that they are of")
      ->check(CLI::Range(std::size_t{1}, std::size_t{100'000}))
      ->capture_default_str();
  app.add_option("--transaction-events", options.transaction_events, "Rows of one transaction")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--directory", options.directory, "Folder on the disk that is meant")->capture_default_str();
  app.add_flag("--ceiling-first", options.ceiling_first, "The other order");
  app.add_flag("--json", json, "One JSON object instead of text");
  kafka->add_option("--brokers", options.brokers, "HOST:PORT")->required();
  postgres->add_option("--url", options.url, "Database, without events")->required();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  options.workload.events -= options.workload.events % options.workload.batch_events;
  std::vector<Leg> legs;
  if (kafka->parsed()) legs = race_kafka(options);
  if (sqlite->parsed()) legs = race_sqlite(options);
  if (postgres->parsed()) legs = race_postgres(options);
  print(legs, options.workload.events, json);
  return 0;
}

}  // namespace
}  // namespace kavach::bench

int main(int argc, char** argv) {
  try {
    return kavach::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "kavach-pipeline: " << error.what() << '\n';
    return 1;
  }
}
