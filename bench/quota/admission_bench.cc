// The verdict on a batch on its home shard: decide(), and settle() when the journal has it, with as many
// batches under way in between as a busy shard has. By the size of the batch, of the deduplication table and
// of the number of organizations; and the memory that an organization and an agent take.
#include <benchmark/benchmark.h>
#include <malloc.h>

#include <cstdint>
#include <memory>

#include "bench/quota/quota_node.h"

namespace kavach::bench {
namespace {

// Fresh keys.
void admit_new(benchmark::State& state, const QuotaNode::Options& options) {
  QuotaNode node(options);
  for (int i = 0; i < 100; ++i) node.turn();
  const std::uint64_t before = node.admission().dedup().size();
  std::int64_t admitted = 0;
  for (auto _ : state) admitted += static_cast<std::int64_t>(node.turn());
  if (admitted != state.iterations() * options.events ||
      node.admission().dedup().size() != before + static_cast<std::uint64_t>(admitted)) {
    state.SkipWithError("wrong answer: the time means nothing");
  }
  state.SetItemsProcessed(state.iterations() * options.events);
}

// One organization that has used every second of its burst window.
void BM_AdmitNew(benchmark::State& state) {
  admit_new(state, {.events = static_cast<std::uint32_t>(state.range(0)),
                    .keys = static_cast<std::uint64_t>(state.range(1)),
                    .full_seconds = 60});
}
// The keys become 2.5 times as many, so that every part of the table has grown once.
BENCHMARK(BM_AdmitNew)->ArgNames({"events", "keys"})->Args({1, 100'000})->Iterations(150'000);
BENCHMARK(BM_AdmitNew)->ArgNames({"events", "keys"})->Args({100, 10'000})->Iterations(150);
BENCHMARK(BM_AdmitNew)->ArgNames({"events", "keys"})->Args({100, 100'000})->Iterations(1'500);
BENCHMARK(BM_AdmitNew)->ArgNames({"events", "keys"})->Args({100, 1'000'000})->Iterations(15'000);
BENCHMARK(BM_AdmitNew)->ArgNames({"events", "keys"})->Args({100, 10'000'000})->Iterations(150'000);

// A random organization every time: whether the cost depends on how many there are.
void BM_AdmitOrgs(benchmark::State& state) {
  admit_new(state, {.orgs = static_cast<std::uint32_t>(state.range(0)),
                    .events = static_cast<std::uint32_t>(state.range(1))});
}
BENCHMARK(BM_AdmitOrgs)
    ->ArgNames({"orgs", "events"})
    ->ArgsProduct({{10, 100, 1'000, 10'000, 100'000}, {1, 100}})
    ->Iterations(3'000);

// The same batch again and again.
void BM_AdmitDuplicate(benchmark::State& state) {
  QuotaNode node({.events = static_cast<std::uint32_t>(state.range(0)), .under_way = 1});
  quota::AdmissionRequest& request = node.next_request();
  node.admission().decide(request);
  node.admission().settle(request.claim, true, node.now());
  std::int64_t duplicates = 0;
  for (auto _ : state) {
    node.admission().decide(request);
    duplicates += request.verdict == quota::Verdict::kNothingToWrite ? 1 : 0;
  }
  if (duplicates != state.iterations()) state.SkipWithError("wrong answer: the time means nothing");
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_AdmitDuplicate)->ArgName("events")->Arg(1)->Arg(100);

std::size_t heap_bytes() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

// What malloc has lent for organizations that have sent something, the policies included.
std::size_t node_bytes(const QuotaNode::Options& options) {
  const std::size_t before = heap_bytes();
  const QuotaNode node(options);
  return heap_bytes() - before;
}

void BM_OrgMemory(benchmark::State& state) {
  constexpr std::uint32_t kOrgs = 100'000;
  constexpr std::uint32_t kAgents = 10;
  const QuotaNode::Options small{.agents = 1, .events = 1, .keys = 1};
  double per_org = 0;
  double per_agent = 0;
  for (auto _ : state) {
    const auto bytes_of = [&](std::uint32_t orgs, std::uint32_t agents) {
      QuotaNode::Options options = small;
      options.orgs = orgs;
      options.agents = agents;
      return static_cast<double>(node_bytes(options));
    };
    const double none = bytes_of(1, 1);
    per_org = (bytes_of(kOrgs, 1) - none) / kOrgs;
    per_agent = ((bytes_of(kOrgs, kAgents) - none) / kOrgs - per_org) / (kAgents - 1);
  }
  if (per_org < 100 || per_agent < 8) state.SkipWithError("wrong answer: the bytes mean nothing");
  state.counters["org_bytes"] = per_org;
  state.counters["agent_bytes"] = per_agent;
  state.counters["org_with_10_agents_bytes"] = per_org + (kAgents - 1) * per_agent;
}
BENCHMARK(BM_OrgMemory)->Iterations(1)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace kavach::bench
