// The journal: encoding a batch, sealing its frame, and committing groups of frames to the disk.
//
// The group commits write in the working directory, so start the program on the disk that is meant.
#include <benchmark/benchmark.h>
#include <stdlib.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "bench/support/sample.h"
#include "http/ingest/batch_parser.h"
#include "sink/journal/frame.h"
#include "sink/journal/journal.h"

namespace kavach::bench {
namespace {

// A parsed sample and what its views point into.
struct ParsedSample {
  PaddedBuffer body;
  std::string arena;
  Batch batch;
};

std::vector<std::unique_ptr<ParsedSample>> parsed_samples(std::uint32_t events) {
  http::BatchParser parser({.batch_events_max = 1000});
  Random random(1);
  std::vector<std::unique_ptr<ParsedSample>> samples;
  for (std::uint64_t seed = 0; seed < kDistinctBodies; ++seed) {
    auto& sample = *samples.emplace_back(std::make_unique<ParsedSample>());
    sample.body = padded(make_sample(events, seed).text);
    if (!parser.fast(sample.body.view(), kSampleNow, sample.batch, sample.arena)) return {};
    sample.batch.received_at = kSampleNow;
    sample.batch.id = make_uuid7(kSampleNow, random);
  }
  return samples;
}

bool decodes_to(const std::vector<std::uint8_t>& payload, const Batch& wanted) {
  Batch batch;
  std::string arena;
  if (!sink::decode_batch(payload, batch, arena) || batch.events.size() != wanted.events.size()) return false;
  const Event& got = batch.events.back();
  const Event& sent = wanted.events.back();
  return got.idempotency_key == sent.idempotency_key && got.cost == sent.cost && got.run_id == sent.run_id;
}

void BM_EncodeBatch(benchmark::State& state) {
  const auto samples = parsed_samples(static_cast<std::uint32_t>(state.range(0)));
  std::vector<std::uint8_t> payload;
  for (const auto& sample : samples) {
    payload.clear();
    sink::encode_batch(sample->batch, {}, payload);
    if (!decodes_to(payload, sample->batch)) state.SkipWithError("wrong answer: the time means nothing");
  }
  std::size_t next = 0;
  for (auto _ : state) {
    payload.clear();
    sink::encode_batch(samples[next]->batch, {}, payload);
    benchmark::DoNotOptimize(payload.data());
    next = (next + 1) % samples.size();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
  state.counters["bytes_per_event"] =
      static_cast<double>(payload.size()) / static_cast<double>(state.range(0));
}
BENCHMARK(BM_EncodeBatch)->Arg(1)->Arg(10)->Arg(100)->Arg(1000);

void BM_Seal(benchmark::State& state) {
  sink::Frame frame;
  frame.payload.assign(static_cast<std::size_t>(state.range(0)), 0x5a);
  for (auto _ : state) {
    frame.seal();
    benchmark::DoNotOptimize(frame.payload_crc);
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_Seal)->Arg(100)->Arg(6'000)->Arg(60'000);

// A folder below the working directory that goes with the object.
class TemporaryFolder {
 public:
  TemporaryFolder() : path_("kavach-journal-bench-XXXXXX") {
    if (::mkdtemp(path_.data()) == nullptr) path_.clear();
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// One group of `range(0)` frames of 100 events, from the first submit to the last receipt.
void BM_GroupCommit(benchmark::State& state) {
  const auto samples = parsed_samples(100);
  const auto frames_per_group = static_cast<std::size_t>(state.range(0));
  const TemporaryFolder folder;
  auto journal = sink::Journal::open({.directory = folder.path() + "/journal"});
  if (samples.empty() || !journal) {
    state.SkipWithError("no journal in the working directory");
    return;
  }
  std::vector<sink::Frame> frames(frames_per_group);
  std::size_t group_bytes = 0;
  for (std::size_t i = 0; i < frames.size(); ++i) {
    sink::encode_batch(samples[i % samples.size()]->batch, {}, frames[i].payload);
    frames[i].events = 100;
    frames[i].seal();
    group_bytes += frames[i].payload.size();
  }
  std::atomic<std::size_t> delivered{0};
  std::atomic<std::size_t> failed{0};
  (*journal)->start([&](std::uint32_t, std::span<sink::Frame* const> done) {
    for (const sink::Frame* frame : done) failed += frame->receipt == sink::Receipt::kJournal ? 0 : 1;
    delivered += done.size();
    delivered.notify_one();
  });
  std::size_t expected = 0;
  for (auto _ : state) {
    for (sink::Frame& frame : frames) {
      if (!(*journal)->submit(0, &frame)) ++failed;
    }
    (*journal)->flush(0);
    expected += frames.size();
    for (std::size_t seen = delivered; seen < expected; seen = delivered) delivered.wait(seen);
    // No follower: what is durable is let go, and its segment is written again.
    (*journal)->release((*journal)->durable_seq());
  }
  if (failed != 0 || (*journal)->durable_seq() != expected) {
    state.SkipWithError("wrong answer: the time means nothing");
  }
  (*journal)->stop();
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(group_bytes));
  state.SetItemsProcessed(state.iterations() * state.range(0) * 100);
}
BENCHMARK(BM_GroupCommit)->Arg(1)->Arg(4)->Arg(16)->Arg(64)->MeasureProcessCPUTime()->UseRealTime();

}  // namespace
}  // namespace kavach::bench
