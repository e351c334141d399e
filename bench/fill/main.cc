// kavach-fill: a store with months of a small fleet's events in it, for what reads it (scripts/bench
// reads).
//
// Through the writer that the shipper uses, so that roll-ups, agents and runs are what they would have
// become. However many events there are, they are of the same organizations, agents, models and hours, and
// runs are of the same length: more events means busier agents. Every agent's events come at even distances
// up to now.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <exception>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/fill/fleet.h"
#include "sink/store/store.h"

namespace kavach::bench {
namespace {

struct Options {
  FleetOptions fleet;
  std::string sqlite, postgres, org, project;
  std::size_t transaction_events = 50'000;
};

Uuid parse_id(const std::string& text) {
  const auto id = Uuid::parse(text);
  if (!id) throw std::runtime_error(text + " is no UUID");
  return *id;
}

// Organizations of the store's own making, beside the one that is read.
std::vector<FleetOrg> make_orgs(sink::Store& store, const Options& options) {
  std::vector<FleetOrg> orgs{{parse_id(options.org), parse_id(options.project)}};
  Random random;
  while (orgs.size() < options.fleet.orgs) {
    sink::NewKey key{.name = "fill", .prefix = "ak_live_fill0000", .digest = {}};
    for (std::uint8_t& byte : key.digest) byte = static_cast<std::uint8_t>(random.next());
    const auto made = store.create_org(fmt::format("org-{}", orgs.size()), "max", key).value();
    orgs.push_back({made.id, made.project_id});
  }
  return orgs;
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app{"Fills a store with events of the last days, through Kavach's own writer.", "kavach-fill"};
  auto* const sqlite = app.add_option("--sqlite", options.sqlite, "Database file");
  app.add_option("--postgres", options.postgres, "Database's URL")->excludes(sqlite);
  app.add_option("--org", options.org, "Id of the organization that is read")->required();
  app.add_option("--project", options.project, "Id of its project")->required();
  app.add_option("--events", options.fleet.events, "How many")
      ->check(CLI::Range(std::size_t{1'000}, std::size_t{100'000'000}))
      ->capture_default_str();
  app.add_option("--orgs", options.fleet.orgs, "Organizations that they are of")
      ->check(CLI::Range(std::size_t{2}, std::size_t{10'000}))
      ->capture_default_str();
  app.add_option("--days", options.fleet.days, "Days up to now that they are of")
      ->check(CLI::Range(1, 365))
      ->capture_default_str();
  app.add_option("--transaction-events", options.transaction_events, "Events of one transaction")
      ->check(CLI::Range(std::size_t{100}, std::size_t{1'000'000}))
      ->capture_default_str();
  try {
    app.parse(argc, argv);
    if (options.sqlite.empty() == options.postgres.empty())
      throw CLI::ValidationError("--sqlite or --postgres is needed");
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }

  auto opened = options.sqlite.empty() ? sink::open_postgres({.url = options.postgres})
                                       : sink::open_sqlite(options.sqlite);
  sink::Store& store = *opened.value();
  const WallMicros now = system_clock().wall();
  Fleet fleet(options.fleet, make_orgs(store, options), now);
  Random random;
  const Uuid node = make_uuid7(now, random);
  std::uint64_t seq = 0, stored = 0;
  const auto started = std::chrono::steady_clock::now();
  for (std::vector<Batch> batches; fleet.next(options.transaction_events, batches);) {
    seq += batches.size();
    stored += store.apply(batches, node, seq).value().stored;
  }
  if (stored != fleet.events())
    throw std::runtime_error(fmt::format("{} of {} events were new", stored, fleet.events()));
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
  std::cout << fmt::format(R"({{"events":{},"seconds":{:.1f}}})", stored, seconds.count()) << '\n';
  return 0;
}

}  // namespace
}  // namespace kavach::bench

int main(int argc, char** argv) {
  try {
    return kavach::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "kavach-fill: " << error.what() << '\n';
    return 1;
  }
}
