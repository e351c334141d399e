// One organization under limits on a node that is its own fleet, for tests of what is admitted.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/money.h"
#include "quota/admission.h"

namespace kavach::quota {

// Noon of a day in the middle of a month.
inline constexpr WallMicros kNoon = 1'780'056'000LL * kMicrosPerSecond;
inline constexpr std::int64_t kSecond = kMicrosPerSecond;
inline constexpr std::int64_t kHour = kMicrosPerHour;
inline const Uuid kAcme = *Uuid::parse("01900000-0000-7000-8000-00000000000a");

// `count` events without keys, of one agent each or of the one named.
struct LimitedBatch : AdmissionRequest {
  explicit LimitedBatch(std::size_t count, Now at, std::vector<std::uint64_t> of_agents = {1}) {
    org = kAcme;
    now = at;
    numbers.resize(count);
    for (Event& event : numbers) event.cost = kNanoPerDollar;
    events = numbers;
    keys.resize(count);
    agents = std::move(of_agents);
    if (agents.size() > 1) {
      for (std::size_t i = 0; i < count; ++i)
        agent_of.push_back(static_cast<std::uint16_t>(i % agents.size()));
    }
    decided = [](AdmissionRequest& request) noexcept { ++static_cast<LimitedBatch&>(request).verdicts; };
  }
  // One letter an event: admitted or not.
  std::string admitted_text() const {
    std::string text;
    for (const std::uint8_t one : admitted) text.push_back(one != 0 ? '1' : '0');
    return text;
  }
  std::vector<Event> numbers;
  int verdicts = 0;
};

struct LimitsFixture {
  LimitsFixture() { install({}); }
  void install(Policy policy) {
    policy.org = kAcme;
    policy.tier = "pro";
    ledger.install(std::make_shared<PolicyTable>(std::vector<Policy>{std::move(policy)}));
  }
  // The same moment on both clocks, so that a test moves one number.
  static Now at(WallMicros wall) { return {.wall = wall, .mono = wall}; }
  // Decides and settles; returns how many events were admitted.
  std::uint32_t send(std::size_t count, WallMicros when, std::vector<std::uint64_t> agents = {1}) {
    LimitedBatch batch(count, at(when), std::move(agents));
    admission.decide(batch);
    refusal = batch.refusal;
    answers = batch.agent_answers;
    rejected = batch.rejected_events;
    if (batch.verdict != Verdict::kAdmitted) return 0;
    admission.settle(batch.claim, true, at(when));
    return batch.admitted_events;
  }

  LocalFleet fleet;
  Ledger ledger{{}, fleet};
  Admission admission{{.window_hours = 168, .keys_max = 10'000}, ledger};
  // Of the last send().
  Refusal refusal;
  std::vector<AgentAnswer> answers;
  std::uint32_t rejected = 0;
};

}  // namespace kavach::quota
