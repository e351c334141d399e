// The race to Postgres.
#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "bench/pipeline/races.h"
#include "sink/store/store.h"

namespace kavach::bench {

std::vector<Leg> race_postgres(const RaceOptions& options) {
  const Workload workload(options.workload);
  const std::vector<Batch> records = workload.single_events();
  auto store = sink::open_postgres({.url = options.url}).value();
  std::vector<sink::PartitionPosition> positions{store->claim_partition("race", 0).value()};
  Random random;
  const Uuid node = make_uuid7(system_clock().wall(), random);
  std::uint64_t stored = 0;

  const LegTimer timer("kavach");
  for (std::size_t from = 0; from < records.size(); from += options.transaction_events) {
    const std::size_t count = std::min<std::size_t>(options.transaction_events, records.size() - from);
    positions[0].next_offset += static_cast<std::int64_t>(count);
    stored += store->apply_at(std::span(records).subspan(from, count), node, positions).value().stored;
  }
  const Leg leg = timer.stop();
  if (stored != workload.events()) {
    throw std::runtime_error(fmt::format("{} of {} events were new", stored, workload.events()));
  }
  return {leg};
}

}  // namespace kavach::bench
