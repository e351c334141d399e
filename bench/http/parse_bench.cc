// What it costs to turn a body into a Batch: the three passes, and a body that is refused.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "bench/support/sample.h"
#include "http/ingest/batch_parser.h"

namespace kavach::bench {
namespace {

std::vector<PaddedBuffer> make_bodies(std::uint32_t events, MemberOrder order) {
  std::vector<PaddedBuffer> bodies;
  for (std::uint64_t seed = 0; seed < kDistinctBodies; ++seed) {
    bodies.push_back(padded(make_sample(events, seed, order).text));
  }
  return bodies;
}

// Runs `parse(body)` over all bodies in turn; it must find `events` events in each.
template <typename Parse>
void run(benchmark::State& state, const std::vector<PaddedBuffer>& bodies, std::uint32_t events,
         Parse parse) {
  for (const PaddedBuffer& body : bodies) {
    if (parse(body.view()) != events) {
      state.SkipWithError("wrong answer: the time means nothing");
      return;
    }
  }
  std::size_t next = 0;
  std::size_t bytes = 0;
  for (auto _ : state) {
    const std::string_view body = bodies[next].view();
    benchmark::DoNotOptimize(parse(body));
    bytes += body.size();
    next = (next + 1) % bodies.size();
  }
  state.SetItemsProcessed(state.iterations() * events);
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes));
}

using Pass = bool (http::BatchParser::*)(std::string_view, WallMicros, Batch&, std::string&);

void plain_pass(benchmark::State& state, Pass pass, MemberOrder order) {
  const auto events = static_cast<std::uint32_t>(state.range(0));
  http::BatchParser parser({.batch_events_max = 1000});
  Batch batch;
  std::string arena;
  run(state, make_bodies(events, order), events, [&](std::string_view body) -> std::size_t {
    return (parser.*pass)(body, kSampleNow, batch, arena) ? batch.events.size() : 0;
  });
}

void BM_DirectPass(benchmark::State& state) {
  plain_pass(state, &http::BatchParser::direct, MemberOrder::kSdk);
}
BENCHMARK(BM_DirectPass)->Arg(1)->Arg(10)->Arg(100)->Arg(1000);

// Every guess at a key is as good as none.
void BM_DirectPassShuffled(benchmark::State& state) {
  plain_pass(state, &http::BatchParser::direct, MemberOrder::kShuffled);
}
BENCHMARK(BM_DirectPassShuffled)->Arg(1)->Arg(100);

void BM_FastPass(benchmark::State& state) {
  plain_pass(state, &http::BatchParser::fast, MemberOrder::kSdk);
}
BENCHMARK(BM_FastPass)->Arg(1)->Arg(10)->Arg(100)->Arg(1000);

void BM_FastPassShuffled(benchmark::State& state) {
  plain_pass(state, &http::BatchParser::fast, MemberOrder::kShuffled);
}
BENCHMARK(BM_FastPassShuffled)->Arg(1)->Arg(10)->Arg(100)->Arg(1000);

void slow_pass(benchmark::State& state, MemberOrder order) {
  const auto events = static_cast<std::uint32_t>(state.range(0));
  http::BatchParser parser({.batch_events_max = 1000});
  Batch batch;
  std::string arena;
  http::Refusal refusal;
  run(state, make_bodies(events, order), events, [&](std::string_view body) -> std::size_t {
    return parser.slow(body, true, kSampleNow, batch, arena, refusal) ? batch.events.size() : 0;
  });
}

void BM_SlowPass(benchmark::State& state) {
  slow_pass(state, MemberOrder::kSdk);
}
BENCHMARK(BM_SlowPass)->Arg(1)->Arg(10)->Arg(100)->Arg(1000);

void BM_SlowPassShuffled(benchmark::State& state) {
  slow_pass(state, MemberOrder::kShuffled);
}
BENCHMARK(BM_SlowPassShuffled)->Arg(100);

// The last event lacks its model: the fast pass goes all the way, the slow one writes the 422.
void BM_Refused(benchmark::State& state) {
  const auto events = static_cast<std::uint32_t>(state.range(0));
  std::vector<PaddedBuffer> bodies;
  for (std::uint64_t seed = 0; seed < kDistinctBodies; ++seed) {
    std::string text = make_sample(events, seed).text;
    text.replace(text.rfind("\"model\""), 7, "\"xodel\"");
    bodies.push_back(padded(text));
  }
  http::BatchParser parser({.batch_events_max = 1000});
  Batch batch;
  std::string arena;
  http::Refusal refusal;
  run(state, bodies, events, [&](std::string_view body) -> std::size_t {
    const bool taken = parser.parse(body, true, kSampleNow, batch, arena, refusal);
    return !taken && refusal.status == 422 && refusal.body.find("Field required") != std::string::npos
               ? events
               : 0;
  });
}
BENCHMARK(BM_Refused)->Arg(1)->Arg(100);

}  // namespace
}  // namespace kavach::bench
