// What it costs that the verdict on a batch is given on the home shard of its organization: the request goes
// there, the verdict comes back, and the settlement goes there again, against the same work without messages.
//
// An iteration is a whole run; items_per_second counts its batches. "CPU" is that of both shards together.
// With one batch under way both sleep most of the time, with 64 hardly ever.
#include <benchmark/benchmark.h>

#include <atomic>
#include <cstdint>

#include "bench/quota/quota_node.h"
#include "engine/shard.h"

namespace kavach::bench {
namespace {

constexpr std::uint64_t kBatches = 5'000;
constexpr ShardId kAsker = 0;
constexpr ShardId kHome = 1;

// The asker on one shard, whose batches are decided on the other.
class Trips {
 public:
  Trips(Runtime& runtime, QuotaNode& node, std::uint64_t under_way)
      : runtime_(runtime), node_(node), under_way_(under_way) {}

  // Returns how many events were admitted in a run.
  std::uint64_t run() {
    begun_ = returned_ = admitted_ = 0;
    done_.store(false);
    running_ = this;
    runtime_.shard(kAsker).post([this] {
      for (std::uint64_t i = 0; i < under_way_; ++i) ask();
    });
    done_.wait(false);
    return admitted_;
  }

 private:
  // On the asker's shard.
  void ask() {
    ++begun_;
    quota::AdmissionRequest& request = node_.next_request();
    request.decided = [](quota::AdmissionRequest& decided) noexcept {
      running_->runtime_.shard(kHome).outbox().send(kAsker, {returned, &decided, 0, 0});
    };
    runtime_.shard(kAsker).outbox().send(kHome, {decide, &request, 0, 0});
  }
  static void returned(void* target, std::uint64_t, std::uint64_t) noexcept {
    const auto& request = *static_cast<quota::AdmissionRequest*>(target);
    Trips& self = *running_;
    self.admitted_ += request.admitted_events;
    self.runtime_.shard(kAsker).outbox().send(
        kHome, {settle, &self, request.claim, static_cast<std::uint64_t>(request.now.wall)});
    if (self.begun_ < kBatches) self.ask();
  }

  // On the home shard.
  static void decide(void* target, std::uint64_t, std::uint64_t) noexcept {
    running_->node_.admission().decide(*static_cast<quota::AdmissionRequest*>(target));
  }
  static void settle(void* target, std::uint64_t claim, std::uint64_t wall) noexcept {
    Trips& self = *static_cast<Trips*>(target);
    const auto now = static_cast<WallMicros>(wall);
    self.node_.admission().settle(static_cast<std::uint32_t>(claim), true, {.wall = now, .mono = 1});
    if (++self.returned_ < kBatches) return;
    self.done_.store(true);
    self.done_.notify_one();
  }

  static inline Trips* running_ = nullptr;
  Runtime& runtime_;
  QuotaNode& node_;
  std::uint64_t under_way_;
  std::uint64_t begun_ = 0;
  std::uint64_t returned_ = 0;
  std::uint64_t admitted_ = 0;
  std::atomic<bool> done_{false};
};

constexpr QuotaNode::Options kOptions{.orgs = 1'000, .keys = 1'000'000};

void finish(benchmark::State& state, std::uint64_t admitted, std::uint32_t events) {
  const auto batches = static_cast<std::uint64_t>(state.iterations()) * kBatches;
  if (admitted != batches * events) state.SkipWithError("wrong answer: the time means nothing");
  state.SetItemsProcessed(static_cast<std::int64_t>(batches));
}

void BM_VerdictFromOtherShard(benchmark::State& state) {
  QuotaNode::Options options = kOptions;
  options.events = static_cast<std::uint32_t>(state.range(0));
  QuotaNode node(options);
  Runtime runtime({.shards = 2});
  runtime.start();
  Trips trips(runtime, node, static_cast<std::uint64_t>(state.range(1)));
  std::uint64_t admitted = 0;
  for (auto _ : state) admitted += trips.run();
  runtime.stop();
  finish(state, admitted, options.events);
}
BENCHMARK(BM_VerdictFromOtherShard)
    ->ArgNames({"events", "under_way"})
    ->ArgsProduct({{1, 100}, {1, 64}})
    ->Iterations(1)
    ->Unit(benchmark::kMillisecond)
    ->MeasureProcessCPUTime()
    ->UseRealTime();

void BM_VerdictOnHomeShard(benchmark::State& state) {
  QuotaNode::Options options = kOptions;
  options.events = static_cast<std::uint32_t>(state.range(0));
  QuotaNode node(options);
  std::uint64_t admitted = 0;
  for (auto _ : state) {
    for (std::uint64_t i = 0; i < kBatches; ++i) admitted += node.turn();
  }
  finish(state, admitted, options.events);
}
BENCHMARK(BM_VerdictOnHomeShard)
    ->ArgName("events")
    ->Arg(1)
    ->Arg(100)
    ->Iterations(1)
    ->Unit(benchmark::kMillisecond)
    ->MeasureProcessCPUTime()
    ->UseRealTime();

}  // namespace
}  // namespace kavach::bench
