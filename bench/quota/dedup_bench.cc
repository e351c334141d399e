// One key in the deduplication table, without the prefetching of a batch (quota/admission_bench.cc), in
// tables that fit in the cache, that do not, and at the default bound.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>
#include <vector>

#include "engine/ids.h"
#include "quota/dedup.h"

namespace kavach::bench {
namespace {

using quota::DedupKey;
using quota::DedupTable;

constexpr WallMicros kNow = 1'780'000'000 * kMicrosPerSecond;

std::vector<DedupKey> random_keys(std::size_t count, std::uint64_t seed) {
  Random random(seed);
  std::vector<DedupKey> keys(count);
  for (DedupKey& key : keys) key = {random.next(), random.next() & DedupKey::kLowMask};
  return keys;
}

DedupTable filled_table(const std::vector<DedupKey>& keys) {
  DedupTable table({.keys_max = keys.size() * 2});
  for (const DedupKey& key : keys) table.restore(key, kNow, kNow);
  return table;
}

// A fresh key is claimed and becomes remembered: what every event of an ordinary batch costs. The table grows
// by a tenth meanwhile.
void BM_DedupNew(benchmark::State& state) {
  const auto keys = static_cast<std::size_t>(state.range(0));
  DedupTable table = filled_table(random_keys(keys, 1));
  const std::vector<DedupKey> fresh = random_keys(keys / 10, 2);
  std::size_t next = 0;
  std::size_t claimed = 0;
  for (auto _ : state) {
    const DedupTable::Number claim = table.begin(0, kNow);
    claimed += table.claim(fresh[next++], claim).found == DedupTable::Found::kClaimed ? 1 : 0;
    table.end(claim);
  }
  if (claimed != fresh.size() || table.size() != keys + fresh.size()) {
    state.SkipWithError("wrong answer: the time means nothing");
  }
  state.SetItemsProcessed(state.iterations());
  state.counters["bytes_per_key"] = static_cast<double>(table.bytes()) / static_cast<double>(table.size());
}
BENCHMARK(BM_DedupNew)->Arg(100'000)->Iterations(10'000);
BENCHMARK(BM_DedupNew)->Arg(1'000'000)->Iterations(100'000);
BENCHMARK(BM_DedupNew)->Arg(10'000'000)->Iterations(1'000'000);

// As above in a table that has as many keys as it may: each new one takes the place of an old one.
void BM_DedupAtBound(benchmark::State& state) {
  const auto keys = static_cast<std::size_t>(state.range(0));
  DedupTable table({.keys_max = keys});
  for (const DedupKey& key : random_keys(keys * 2, 1)) {
    const DedupTable::Number claim = table.begin(0, kNow);
    table.claim(key, claim);
    table.end(claim);
  }
  const std::uint64_t evicted = table.evicted();
  const std::vector<DedupKey> fresh = random_keys(keys / 10, 2);
  std::size_t next = 0;
  for (auto _ : state) {
    const DedupTable::Number claim = table.begin(0, kNow);
    table.claim(fresh[next++], claim);
    table.end(claim);
  }
  if (table.evicted() < evicted + fresh.size() / 2) state.SkipWithError("the table was not at its bound");
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_DedupAtBound)->Arg(100'000)->Iterations(10'000);
BENCHMARK(BM_DedupAtBound)->Arg(10'000'000)->Iterations(1'000'000);

// A remembered key is sent again.
void BM_DedupDuplicate(benchmark::State& state) {
  const std::vector<DedupKey> keys = random_keys(static_cast<std::size_t>(state.range(0)), 1);
  DedupTable table = filled_table(keys);
  const DedupTable::Number claim = table.begin(0, kNow);
  std::size_t next = 0;
  std::int64_t remembered = 0;
  for (auto _ : state) {
    remembered += table.claim(keys[next], claim).found == DedupTable::Found::kRemembered ? 1 : 0;
    next = next + 1 == keys.size() ? 0 : next + 1;
  }
  if (remembered != state.iterations()) state.SkipWithError("wrong answer: the time means nothing");
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_DedupDuplicate)->Arg(100'000)->Arg(1'000'000)->Arg(10'000'000);

// From the text of a key to its fingerprint.
void BM_DedupHash(benchmark::State& state) {
  const quota::DedupHasher hasher(1);
  Random random(1);
  const Uuid scope = make_uuid7(kNow, random);
  std::vector<std::string> keys;
  for (int i = 0; i < 1024; ++i) keys.push_back(make_uuid7(kNow, random).text());
  std::size_t next = 0;
  for (auto _ : state) benchmark::DoNotOptimize(hasher(scope, keys[next++ & 1023]));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_DedupHash);

}  // namespace
}  // namespace kavach::bench
