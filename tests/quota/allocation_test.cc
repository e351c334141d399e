// The data path of limits takes no memory from the heap: every operator new of this binary is counted while
// batches are decided and settled on a node that is its own fleet.
//
// A batch that has been of every kind once is the warm-up. The deduplication table is not seen here: its
// parts come from HugePages (engine/huge_pages.h), and grow with the keys that are remembered (dedup.h).
#include <doctest/doctest.h>
#include <stdlib.h>

#include <cstddef>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "engine/money.h"
#include "quota/admission.h"

namespace {

// One thread, as a shard is.
std::size_t allocations = 0;

void* counted(std::size_t size) {
  ++allocations;
  if (void* const memory = ::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
void* counted(std::size_t size, std::align_val_t alignment) {
  ++allocations;
  const auto unit = static_cast<std::size_t>(alignment);
  if (void* const memory = ::aligned_alloc(unit, (size + unit - 1) / unit * unit)) return memory;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(std::size_t size) {
  return counted(size);
}
void* operator new[](std::size_t size) {
  return counted(size);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  return counted(size, alignment);
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return counted(size, alignment);
}
void operator delete(void* memory) noexcept {
  ::free(memory);
}
void operator delete[](void* memory) noexcept {
  ::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  ::free(memory);
}
void operator delete[](void* memory, std::size_t) noexcept {
  ::free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  ::free(memory);
}
void operator delete[](void* memory, std::align_val_t) noexcept {
  ::free(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  ::free(memory);
}
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept {
  ::free(memory);
}

namespace kavach::quota {
namespace {

// Noon, so that the day does not end meanwhile.
constexpr WallMicros kNoon = 1'780'056'000LL * kMicrosPerSecond;
constexpr std::int64_t kAgents = 10;

// Does not fit into a std::string itself.
constexpr const char* kTier = "a tier with a name of many words";

Uuid org_of(int number) {
  Uuid id;
  id.bytes[15] = static_cast<std::uint8_t>(number);
  return id;
}

Policy policy_of(int number) {
  return {.org = org_of(number), .tier = kTier, .agents_max = kAgents};
}

struct Sent : AdmissionRequest {
  explicit Sent(std::size_t count) : numbers(count) {
    for (Event& event : numbers) event.cost = kNanoPerDollar;
    events = numbers;
    keys.resize(count);
    agents.resize(1);
    decided = [](AdmissionRequest& request) noexcept { ++static_cast<Sent&>(request).verdicts; };
  }
  std::vector<Event> numbers;
  int verdicts = 0;
};

// Five organizations: without limits, and at the end of each limit that there is.
class Shard {
 public:
  Shard() {
    std::vector<Policy> policies;
    for (int i = 0; i < 5; ++i) policies.push_back(policy_of(i));
    policies[1].events_per_day = 0;
    policies[2].burst_per_minute = 0;
    policies[3].budgets = {{BudgetType::kCost, BudgetPeriod::kDaily, 0}};
    policies[4].agents_max = 0;
    ledger_.install(std::make_shared<PolicyTable>(std::move(policies)));
  }

  // A round of all that may happen to a batch of either size; `round` makes its keys fresh. Time passes, so
  // that a burst window fills and is emptied again.
  void round(std::uint64_t round) {
    now_.wall += kMicrosPerSecond;
    now_.mono += kMicrosPerSecond;
    for (Sent* const batch : {&one_, &hundred_}) {
      for (std::size_t agent = 0; agent < kAgents; ++agent) {
        prepare(*batch, 0, 1 + agent, round);
        CHECK(decide(*batch) == Verdict::kAdmitted);
        admission_.settle(batch->claim, agent % 2 == 0, now_);
      }
      // Again, after it was stored: the last of the agents above failed, so it was the one before.
      prepare(*batch, 0, kAgents - 1, round);
      CHECK(decide(*batch) == Verdict::kNothingToWrite);
      check_waiting(*batch, round);
      const Reason reasons[] = {Reason::kDailyLimit, Reason::kBurst, Reason::kOrgBudget, Reason::kAgentLimit};
      for (int org = 1; org < 5; ++org) {
        prepare(*batch, org, 1, round);
        CHECK(decide(*batch) == Verdict::kRefused);
        CHECK(batch->refusal.reason == reasons[org - 1]);
        CHECK(batch->refusal.tier == kTier);
      }
    }
  }

 private:
  void prepare(Sent& batch, int org, std::uint64_t agent, std::uint64_t round) const {
    batch.org = org_of(org);
    batch.now = now_;
    batch.agents[0] = agent;
    for (std::size_t i = 0; i < batch.keys.size(); ++i) {
      const std::uint64_t number =
          (round << 32) + (batch.org.bytes[15] << 24) + (agent << 16) + (batch.keys.size() << 8) + i + 1;
      batch.keys[i] = {number * 0x9e3779b97f4a7c15ULL, number << 40};
    }
  }
  Verdict decide(Sent& batch) {
    batch.verdicts = 0;
    admission_.decide(batch);
    CHECK(batch.verdicts == 1);
    return batch.verdict;
  }
  // A batch waits for another one with the same keys, which fails, and takes them over.
  void check_waiting(Sent& batch, std::uint64_t round) {
    Sent& first = batch.keys.size() == 1 ? first_one_ : first_hundred_;
    prepare(first, 0, kAgents, round);
    prepare(batch, 0, kAgents, round);
    CHECK(decide(first) == Verdict::kAdmitted);
    batch.verdicts = 0;
    admission_.decide(batch);
    CHECK(batch.verdicts == 0);
    admission_.settle(first.claim, false, now_);
    CHECK(batch.verdicts == 1);
    CHECK(batch.verdict == Verdict::kAdmitted);
    admission_.settle(batch.claim, true, now_);
  }

  Now now_{.wall = kNoon, .mono = kNoon};
  LocalFleet fleet_;
  Ledger ledger_{{}, fleet_};
  Admission admission_{{.window_hours = 168, .keys_max = 1'000'000}, ledger_};
  Sent one_{1};
  Sent hundred_{100};
  Sent first_one_{1};
  Sent first_hundred_{100};
};

TEST_CASE("a vector is counted") {
  const std::size_t before = allocations;
  const std::vector<int> numbers(3);
  CHECK(allocations == before + 1);
}

TEST_CASE("verdicts and settlements of batches allocate nothing") {
  Shard shard;
  // As long as the burst window grows.
  for (std::uint64_t round = 1; round <= 70; ++round) shard.round(round);
  const std::size_t before = allocations;
  for (std::uint64_t round = 71; round <= 300; ++round) shard.round(round);
  CHECK(allocations == before);
}

}  // namespace
}  // namespace kavach::quota
