// What it costs to inflate a gzip body, compressed as the SDK does. Bytes per second are those of the
// content.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "bench/support/sample.h"
#include "http/ingest/inflate.h"

namespace kavach::bench {
namespace {

constexpr std::size_t kBytesMax = 10 << 20;

void BM_Inflate(benchmark::State& state) {
  const auto events = static_cast<std::uint32_t>(state.range(0));
  std::vector<std::string> bodies;
  http::Inflater inflater;
  PaddedBuffer out;
  http::InflateError error{};
  for (std::uint64_t seed = 0; seed < kDistinctBodies; ++seed) {
    const std::string text = make_sample(events, seed).text;
    bodies.push_back(gzip(text));
    if (!inflater.inflate(bodies.back(), kBytesMax, out, error) || out.view() != text) {
      state.SkipWithError("wrong answer: the time means nothing");
      return;
    }
  }
  std::size_t next = 0;
  std::size_t bytes = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(inflater.inflate(bodies[next], kBytesMax, out, error));
    bytes += out.size();
    next = (next + 1) % bodies.size();
  }
  state.SetItemsProcessed(state.iterations() * events);
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes));
}
BENCHMARK(BM_Inflate)->Arg(1)->Arg(10)->Arg(100)->Arg(1000);

}  // namespace
}  // namespace kavach::bench
