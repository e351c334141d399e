// The verdict on a batch on its home shard: decide(), and settle() when the journal has it, with as many
// batches under way in between as a busy shard has.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/ids.h"
#include "quota/admission.h"

namespace kavach::bench {
namespace {

constexpr quota::Now kNow{.wall = 1'780'000'000 * kMicrosPerSecond, .mono = 1};

quota::DedupKey random_key(Random& random) {
  return {random.next(), random.next() & ~std::uint64_t{0xffff}};
}

// A table of `keys` keys, and the batches under way.
class Node {
 public:
  Node(std::uint64_t keys, std::uint32_t events)
      : admission_({.keys_max = 2 * keys}, ledger_), numbers_(events), requests_(kUnderWay) {
    ledger_.install(
        std::make_shared<quota::PolicyTable>(std::vector<quota::Policy>{{.org = kOrg,
                                                                         .tier = "pro",
                                                                         .events_per_day = kPlenty,
                                                                         .burst_per_minute = kPlenty,
                                                                         .agents_max = 10}}));
    for (std::uint64_t i = 0; i < keys; ++i) {
      admission_.dedup().restore(random_key(random_), kNow.wall, kNow.wall);
    }
    for (quota::AdmissionRequest& request : requests_) {
      request.org = kOrg;
      request.now = kNow;
      request.events = numbers_;
      request.agents = {1};
      request.keys.resize(events);
      request.decided = [](quota::AdmissionRequest&) noexcept {};
    }
  }
  // Settles the oldest batch under way and decides a new one in its place; returns its events that are new.
  std::uint64_t turn() {
    quota::AdmissionRequest& request = requests_[turns_++ % kUnderWay];
    if (turns_ > kUnderWay) admission_.settle(request.claim, true, kNow);
    for (quota::DedupKey& key : request.keys) key = random_key(random_);
    admission_.decide(request);
    return request.verdict == quota::Verdict::kAdmitted ? request.admitted_events : 0;
  }
  quota::AdmissionRequest& request() { return requests_.front(); }
  quota::Admission& admission() { return admission_; }

 private:
  static constexpr std::size_t kUnderWay = 64;
  static constexpr std::int64_t kPlenty = 1'000'000'000'000;
  static constexpr Uuid kOrg{};
  Random random_{1};
  quota::LocalFleet fleet_;
  quota::Ledger ledger_{{}, fleet_};
  quota::Admission admission_;
  std::vector<Event> numbers_;
  std::vector<quota::AdmissionRequest> requests_;
  std::size_t turns_ = 0;
};

// Fresh keys; the table grows by a tenth meanwhile.
void BM_AdmitNew(benchmark::State& state) {
  const auto events = static_cast<std::uint32_t>(state.range(0));
  const auto keys = static_cast<std::uint64_t>(state.range(1));
  Node node(keys, events);
  std::int64_t admitted = 0;
  for (auto _ : state) admitted += static_cast<std::int64_t>(node.turn());
  if (admitted != state.iterations() * events ||
      node.admission().dedup().size() != keys + static_cast<std::uint64_t>(admitted)) {
    state.SkipWithError("wrong answer: the time means nothing");
  }
  state.SetItemsProcessed(state.iterations() * events);
}
BENCHMARK(BM_AdmitNew)->Args({1, 1'000'000})->Iterations(100'000);
BENCHMARK(BM_AdmitNew)->Args({100, 100'000})->Iterations(100);
BENCHMARK(BM_AdmitNew)->Args({100, 1'000'000})->Iterations(1'000);
BENCHMARK(BM_AdmitNew)->Args({100, 10'000'000})->Iterations(10'000);

// The same batch again and again.
void BM_AdmitDuplicate(benchmark::State& state) {
  const auto events = static_cast<std::uint32_t>(state.range(0));
  Node node(1'000'000, events);
  node.turn();
  quota::AdmissionRequest& request = node.request();
  node.admission().settle(request.claim, true, kNow);
  std::int64_t duplicates = 0;
  for (auto _ : state) {
    node.admission().decide(request);
    duplicates += request.verdict == quota::Verdict::kNothingToWrite ? 1 : 0;
  }
  if (duplicates != state.iterations()) state.SkipWithError("wrong answer: the time means nothing");
  state.SetItemsProcessed(state.iterations() * events);
}
BENCHMARK(BM_AdmitDuplicate)->Arg(1)->Arg(100);

}  // namespace
}  // namespace kavach::bench
