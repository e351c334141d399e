// Limits on one node: what is admitted, what is refused and with which words, and that nothing is taken by
// what is not admitted.
#include "quota/limits.h"

#include <doctest/doctest.h>

#include "engine/calendar.h"
#include "tests/quota/limits_fixture.h"

namespace kavach::quota {
namespace {

TEST_CASE_FIXTURE(LimitsFixture,
                  "of a batch that crosses the day's quota the events that fit are admitted, in order") {
  install({.events_per_day = 10});
  CHECK(send(7, kNoon) == 7);
  LimitedBatch batch(5, at(kNoon));
  admission.decide(batch);
  CHECK(batch.admitted_text() == "11100");
  CHECK(batch.rejected_events == 2);
  admission.settle(batch.claim, true, at(kNoon));
  CHECK(send(1, kNoon) == 0);
  CHECK(refusal.reason == Reason::kDailyLimit);
  CHECK(refusal.limit == 10);
  CHECK(refusal.used == 10);
  CHECK(refusal.tier == "pro");
  CHECK(refusal.resume_at == kNoon + 12 * kHour);
  CHECK(refusal.retry_after_s == 12 * 3600);
}

TEST_CASE_FIXTURE(LimitsFixture,
                  "a quota that batches under way may still give back is not refused for good") {
  install({.events_per_day = 10});
  LimitedBatch under_way(10, at(kNoon));
  admission.decide(under_way);
  CHECK(send(1, kNoon) == 0);
  CHECK(refusal.reason == Reason::kBackpressure);
  admission.settle(under_way.claim, false, at(kNoon));
  CHECK(send(10, kNoon) == 10);
}

TEST_CASE_FIXTURE(LimitsFixture,
                  "at midnight the day's quota is whole again, and what was under way counts yesterday") {
  install({.events_per_day = 10});
  const WallMicros midnight = kNoon + 12 * kHour;
  LimitedBatch late(10, at(midnight - 1));
  admission.decide(late);
  CHECK(send(6, midnight) == 6);
  admission.settle(late.claim, true, at(midnight + 1));
  CHECK(send(9, midnight + 2) == 4);
}

TEST_CASE_FIXTURE(LimitsFixture, "no 60 seconds hold more than the burst limit, wherever they begin") {
  install({.burst_per_minute = 100});
  // Random histories against the log of all that was admitted.
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    std::vector<WallMicros> admitted;
    WallMicros now = kNoon + static_cast<WallMicros>(seed) * kHour;
    for (int i = 0; i < 500; ++i) {
      now += static_cast<WallMicros>(random.next() % 2'000'000);
      const std::uint32_t count = send(1 + random.next() % 10, now);
      if (count == 0) CHECK(refusal.reason == Reason::kBurst);
      admitted.insert(admitted.end(), count, now);
    }
    std::size_t first = 0;
    for (std::size_t last = 0; last < admitted.size(); ++last) {
      while (admitted[last] - admitted[first] >= 60 * kSecond) ++first;
      REQUIRE(last - first + 1 <= 100);
    }
    CHECK(admitted.size() > 500);
  }
}

TEST_CASE_FIXTURE(LimitsFixture, "a burst is refused as a whole and can be sent again when it says so") {
  install({.burst_per_minute = 10});
  CHECK(send(8, kNoon) == 8);
  CHECK(send(3, kNoon + kSecond) == 0);
  CHECK(refusal.reason == Reason::kBurst);
  CHECK(refusal.limit == 10);
  CHECK(send(2, kNoon + kSecond) == 2);  // the refused batch took nothing
  CHECK(send(3, kNoon + 2 * kSecond) == 0);
  CHECK(send(8, refusal.resume_at) == 8);
}

TEST_CASE_FIXTURE(LimitsFixture, "a batch that failed gives its burst back") {
  install({.burst_per_minute = 10});
  LimitedBatch batch(10, at(kNoon));
  admission.decide(batch);
  CHECK(send(1, kNoon) == 0);
  admission.settle(batch.claim, false, at(kNoon));
  CHECK(send(10, kNoon) == 10);
}

// Batches of several shards are decided in the order of their messages, not of their times.
TEST_CASE_FIXTURE(LimitsFixture,
                  "a batch that came a moment before the last one is refused for no burst but its own") {
  install({.events_per_day = 10, .burst_per_minute = 100});
  LimitedBatch under_way(9, at(kNoon));
  admission.decide(under_way);
  CHECK(send(7, kNoon + 1) == 0);  // refused, and its burst is still in hand
  CHECK(refusal.reason == Reason::kBackpressure);
  admission.settle(under_way.claim, true, at(kNoon));
  CHECK(send(7, kNoon) == 1);
  CHECK(send(7, kNoon) == 0);
  CHECK(refusal.reason == Reason::kDailyLimit);
  install({.burst_per_minute = 100});
  CHECK(send(90, kNoon) == 90);  // what was not admitted took no burst
  CHECK(send(1, kNoon) == 0);
}

TEST_CASE_FIXTURE(LimitsFixture,
                  "a used-up cost budget refuses, and the batch that crosses the line is recorded") {
  install({.budgets = {{BudgetType::kCost, BudgetPeriod::kDaily, 5 * kNanoPerDollar}}});
  CHECK(send(4, kNoon) == 4);
  CHECK(send(4, kNoon) == 4);
  CHECK(send(1, kNoon) == 0);
  CHECK(refusal.reason == Reason::kOrgBudget);
  CHECK(refusal.used == 8 * kNanoPerDollar);
  CHECK(refusal.resume_at == kNoon + 12 * kHour);
  CHECK(send(1, kNoon + 12 * kHour) == 1);
}

TEST_CASE_FIXTURE(LimitsFixture, "budgets of other kinds never refuse") {
  install({.budgets = {{BudgetType::kCalls, BudgetPeriod::kTotal, 1},
                       {BudgetType::kTokensTotal, BudgetPeriod::kDaily, 0}}});
  CHECK(send(5, kNoon) == 5);
  CHECK(send(5, kNoon) == 5);
}

TEST_CASE_FIXTURE(LimitsFixture, "a new agent is let in while a place is left, a known one always") {
  install({.agents_max = 2});
  CHECK(send(2, kNoon, {1, 2}) == 2);
  CHECK(send(4, kNoon, {1, 3}) == 2);
  CHECK(rejected == 2);
  CHECK(answers == std::vector{AgentAnswer::kAdmitted, AgentAnswer::kOverCap});
  CHECK(send(1, kNoon, {3}) == 0);
  CHECK(refusal.reason == Reason::kAgentLimit);
  CHECK(refusal.limit == 2);
  // A place is free 24 hours after its agent's last event.
  CHECK(send(1, kNoon + 1 * kHour, {1}) == 1);
  CHECK(send(1, kNoon + 24 * kHour + kSecond, {3}) == 1);
  CHECK(send(1, kNoon + 24 * kHour + kSecond, {4}) == 0);
}

TEST_CASE_FIXTURE(LimitsFixture,
                  "1000 new agents race for 100 places while batches are under way: 100 get in") {
  install({.agents_max = 100});
  std::vector<std::unique_ptr<LimitedBatch>> batches;
  std::uint32_t admitted = 0;
  for (std::uint64_t agent = 1; agent <= 1000; ++agent) {
    batches.push_back(std::make_unique<LimitedBatch>(1, at(kNoon), std::vector{agent}));
    admission.decide(*batches.back());
    if (batches.back()->verdict == Verdict::kAdmitted) ++admitted;
  }
  CHECK(admitted == 100);
  // Those of batches that fail are free again.
  for (auto& batch : batches) {
    if (batch->verdict == Verdict::kAdmitted) admission.settle(batch->claim, false, at(kNoon));
  }
  CHECK(send(1, kNoon, {5000}) == 1);
}

TEST_CASE_FIXTURE(LimitsFixture, "a killed agent is dropped, alone it is refused") {
  install({.killed_agents = {7}});
  CHECK(send(2, kNoon, {1, 7}) == 1);
  CHECK(answers == std::vector{AgentAnswer::kAdmitted, AgentAnswer::kKilled});
  CHECK(send(3, kNoon, {7}) == 0);
  CHECK(refusal.reason == Reason::kAgentLimit);
}

TEST_CASE_FIXTURE(LimitsFixture,
                  "when several limits are reached the first in the contract's order is named") {
  install({.events_per_day = 2,
           .burst_per_minute = 2,
           .agents_max = 1,
           .budgets = {{BudgetType::kCost, BudgetPeriod::kDaily, 1}}});
  CHECK(send(2, kNoon) == 2);
  CHECK(send(1, kNoon, {9}) == 0);
  CHECK(refusal.reason == Reason::kDailyLimit);
  install(
      {.burst_per_minute = 2, .agents_max = 1, .budgets = {{BudgetType::kCost, BudgetPeriod::kDaily, 1}}});
  CHECK(send(1, kNoon, {9}) == 0);
  CHECK(refusal.reason == Reason::kBurst);
  install({.agents_max = 1, .budgets = {{BudgetType::kCost, BudgetPeriod::kDaily, 1}}});
  CHECK(send(1, kNoon, {9}) == 0);
  CHECK(refusal.reason == Reason::kOrgBudget);
  install({.agents_max = 1});
  CHECK(send(1, kNoon, {9}) == 0);
  CHECK(refusal.reason == Reason::kAgentLimit);
}

TEST_CASE_FIXTURE(LimitsFixture, "a duplicate takes nothing and is never refused, whatever is used up") {
  install({.events_per_day = 1, .burst_per_minute = 1});
  const DedupHasher hasher(1);
  const auto keyed = [&] {
    auto batch = std::make_unique<LimitedBatch>(1, at(kNoon));
    batch->keys[0] = hasher(kAcme, "a");
    return batch;
  };
  auto first = keyed();
  admission.decide(*first);
  admission.settle(first->claim, true, at(kNoon));
  auto again = keyed();
  admission.decide(*again);
  CHECK(again->verdict == Verdict::kNothingToWrite);
  CHECK(again->rejected_events == 0);
}

TEST_CASE_FIXTURE(LimitsFixture,
                  "an event beyond the quota gives its key back, and so do its twins in the batch") {
  install({.events_per_day = 1});
  const DedupHasher hasher(1);
  LimitedBatch batch(4, at(kNoon));
  batch.keys = {hasher(kAcme, "a"), hasher(kAcme, "b"), hasher(kAcme, "a"), hasher(kAcme, "b")};
  admission.decide(batch);
  CHECK(batch.admitted_text() == "1000");
  CHECK(batch.rejected_events == 2);  // "b" twice; the second "a" is a duplicate of what is stored
  admission.settle(batch.claim, true, at(kNoon));
  LimitedBatch tomorrow(1, at(kNoon + 24 * kHour));
  tomorrow.keys = {hasher(kAcme, "b")};
  admission.decide(tomorrow);
  CHECK(tomorrow.verdict == Verdict::kAdmitted);
}

TEST_CASE_FIXTURE(LimitsFixture, "in shadow mode everything is counted and nothing refused") {
  ledger.set_modes({LimitMode::kShadow, LimitMode::kShadow, LimitMode::kShadow, LimitMode::kShadow});
  install({.events_per_day = 1,
           .burst_per_minute = 1,
           .agents_max = 1,
           .budgets = {{BudgetType::kCost, BudgetPeriod::kDaily, 1}}});
  CHECK(send(5, kNoon, {1, 2}) == 5);
  CHECK(send(5, kNoon, {3}) == 5);
  CHECK(ledger.metrics().daily_shadowed.value() == 2);
  CHECK(ledger.metrics().burst_shadowed.value() == 2);
  CHECK(ledger.metrics().budget_shadowed.value() == 1);
  CHECK(admission.metrics().agent_shadowed_batches.value() == 2);
}

TEST_CASE_FIXTURE(LimitsFixture, "a new policy takes effect with the next batch, up and down") {
  install({.events_per_day = 10});
  CHECK(send(5, kNoon) == 5);
  install({.events_per_day = 6});
  CHECK(send(5, kNoon) == 1);
  install({.events_per_day = 20});
  CHECK(send(50, kNoon) == 14);
  CHECK(send(1, kNoon) == 0);
  CHECK(refusal.used == 20);
}

TEST_CASE_FIXTURE(LimitsFixture, "what was used before a restart counts") {
  install({.events_per_day = 10,
           .agents_max = 1,
           .budgets = {{BudgetType::kCost, BudgetPeriod::kMonthly, 9 * kNanoPerDollar}}});
  ledger.restore_usage(kAcme, BudgetPeriod::kDaily, period_number(BudgetPeriod::kDaily, kNoon),
                       {.events = 4});
  ledger.restore_usage(kAcme, BudgetPeriod::kMonthly, period_number(BudgetPeriod::kMonthly, kNoon),
                       {.events = 4, .cost = 8 * kNanoPerDollar});
  ledger.restore_agent(kAcme, 1, kNoon - kHour);
  CHECK(send(1, kNoon, {2}) == 0);
  CHECK(refusal.reason == Reason::kAgentLimit);
  CHECK(send(3, kNoon, {1}) == 3);
  CHECK(send(3, kNoon, {1}) == 0);
  CHECK(refusal.reason == Reason::kOrgBudget);
  // The next month: the day's quota is another one too.
  CHECK(send(12, kNoon + 31 * 24 * kHour, {1}) == 10);
}

// An authority whose clock is not the node's: it says which day it is.
struct AuthorityOfAnotherClock final : Fleet {
  Answer renew(OrgLedger& org, const Ask& ask, Now now) override {
    turn_day(org, day);
    org.ceiling = org.policy->events_per_day;
    org.charged = org.ceiling;
    org.day_ends = now.mono + kHour;
    org.burst_units = ask.burst_need;
    return Answer::kDone;
  }
  bool shares_agents() const noexcept override { return false; }
  Answer claim_agents(OrgLedger&, std::span<const std::uint64_t>, Now) override { return Answer::kDone; }

  std::int64_t day = 0;
};

struct MidnightFixture {
  MidnightFixture() {
    std::vector<Policy> policies(1);
    policies[0] = {.org = kAcme,
                   .events_per_day = 2,
                   .burst_per_minute = 100,  // asked for with every batch
                   .budgets = {{BudgetType::kCost, BudgetPeriod::kDaily, 3 * kNanoPerDollar}}};
    ledger.install(std::make_shared<PolicyTable>(std::move(policies)));
  }
  // An event of a dollar on `day`, by the authority; `wall` is the node's clock.
  Ledger::Outcome send(std::int64_t day, WallMicros wall) {
    authority.day = day;
    OrgLedger& org = ledger.org(kAcme);
    const auto outcome = ledger.reserve(org, 1, {.wall = wall, .mono = kHour}, take, refusal);
    if (outcome != Ledger::Outcome::kTaken) return outcome;
    take.usage = {.events = 1, .cost = kNanoPerDollar};
    ledger.settle(org, take, true);
    return outcome;
  }

  const std::int64_t today = period_number(BudgetPeriod::kDaily, kNoon);
  const WallMicros midnight = start_of_day(today);
  AuthorityOfAnotherClock authority;
  Ledger ledger{{}, authority};
  Take take;
  Refusal refusal;
};

TEST_CASE_FIXTURE(MidnightFixture,
                  "a batch counts on the day it was taken from, whatever the node's clock says") {
  CHECK(send(today, midnight - 5 * kSecond) == Ledger::Outcome::kTaken);
  CHECK(take.accepted_at == midnight);
  CHECK(take.day == today);
  CHECK(take.periods[0] == today);
  CHECK(send(today - 1, midnight + 5 * kSecond) == Ledger::Outcome::kTaken);
  CHECK(take.accepted_at == midnight - 1);
  CHECK(take.periods[0] == today - 1);
  CHECK(send(today, kNoon) == Ledger::Outcome::kTaken);
  CHECK(take.accepted_at == kNoon);
}

TEST_CASE_FIXTURE(MidnightFixture, "a refusal ends with the day of the authority") {
  CHECK(send(today, midnight - kSecond) == Ledger::Outcome::kTaken);
  CHECK(send(today, midnight - kSecond) == Ledger::Outcome::kTaken);
  CHECK(send(today, midnight - kSecond) == Ledger::Outcome::kRefused);
  CHECK(refusal.reason == Reason::kDailyLimit);
  CHECK(refusal.resume_at == midnight + 24 * kHour);
  CHECK(refusal.retry_after_s == 24 * 3600);
  CHECK(send(today, midnight + 25 * kHour) == Ledger::Outcome::kRefused);
  CHECK(refusal.resume_at == midnight + 24 * kHour);
  CHECK(refusal.retry_after_s == 1);
  const RateState rate = ledger.rate_state(ledger.org(kAcme), {.wall = midnight + 25 * kHour, .mono = kHour});
  CHECK(rate.daily_left == 0);
  CHECK(rate.daily_reset_s == 1);
}

TEST_CASE_FIXTURE(MidnightFixture,
                  "what a budget's day has used is not lost while clocks disagree about midnight") {
  ledger.set_modes({.daily = LimitMode::kShadow});
  for (int i = 0; i < 2; ++i) {
    CHECK(send(today - 1, midnight) == Ledger::Outcome::kTaken);
    CHECK(send(today, midnight) == Ledger::Outcome::kTaken);
  }
  CHECK(send(today, midnight) == Ledger::Outcome::kTaken);
  CHECK(send(today, midnight) == Ledger::Outcome::kRefused);
  CHECK(refusal.reason == Reason::kOrgBudget);
  CHECK(refusal.used == 3 * kNanoPerDollar);
  CHECK(send(today - 1, midnight) == Ledger::Outcome::kTaken);
  CHECK(send(today - 1, midnight) == Ledger::Outcome::kRefused);
}

TEST_CASE_FIXTURE(MidnightFixture,
                  "a batch under way while the day goes there and back is settled where it was taken") {
  for (const bool settled_while_away : {false, true}) {
    CAPTURE(settled_while_away);
    OrgLedger& org = ledger.org(kAcme);
    const std::int64_t spent = org.spent;
    const Now now{.wall = midnight, .mono = kHour};
    authority.day = today;
    REQUIRE(ledger.reserve(org, 1, now, take, refusal) == Ledger::Outcome::kTaken);
    const Take under_way = take;
    turn_day(org, today - 1);
    if (settled_while_away) ledger.settle(org, under_way, true);
    turn_day(org, today);
    if (!settled_while_away) ledger.settle(org, under_way, true);
    CHECK(org.reserved == 0);
    CHECK(org.spent == spent + 1);
  }
  CHECK(send(today, midnight) == Ledger::Outcome::kRefused);
  CHECK(refusal.reason == Reason::kDailyLimit);
}

TEST_CASE_FIXTURE(MidnightFixture, "after a restart the days on both sides of midnight are known") {
  ledger.restore_usage(kAcme, BudgetPeriod::kDaily, today - 1, {.events = 1, .cost = 3 * kNanoPerDollar});
  ledger.restore_usage(kAcme, BudgetPeriod::kDaily, today, {.events = 2, .cost = 1});
  CHECK(send(today - 1, midnight) == Ledger::Outcome::kRefused);
  CHECK(refusal.reason == Reason::kOrgBudget);
  CHECK(send(today, midnight) == Ledger::Outcome::kRefused);
  CHECK(refusal.reason == Reason::kDailyLimit);
}

TEST_CASE_FIXTURE(LimitsFixture, "a day that was over for this node stays over when its clock is set back") {
  install({.events_per_day = 10});
  const WallMicros midnight = kNoon + 12 * kHour;
  CHECK(send(6, midnight) == 6);
  LimitedBatch batch(5, at(midnight - kSecond));
  admission.decide(batch);
  CHECK(batch.admitted_events == 4);
  CHECK(batch.accepted_at == midnight);
}

TEST_CASE("periods end where the UTC calendar says") {
  const auto end = [](BudgetPeriod period, WallMicros now) { return period_end(period, now) / kSecond; };
  constexpr WallMicros kFeb28 = 1'709'164'799LL * kSecond;  // 2024-02-28T23:59:59Z, a leap year
  CHECK(end(BudgetPeriod::kDaily, kFeb28) == 1'709'164'800);
  CHECK(end(BudgetPeriod::kMonthly, kFeb28) == 1'709'251'200);  // March 1st
  constexpr WallMicros kDec31 = 1'735'689'599LL * kSecond;      // 2024-12-31T23:59:59Z
  CHECK(end(BudgetPeriod::kMonthly, kDec31) == 1'735'689'600);
  CHECK(period_number(BudgetPeriod::kMonthly, kDec31) + 1 ==
        period_number(BudgetPeriod::kMonthly, kDec31 + kSecond));
  CHECK(period_number(BudgetPeriod::kMonthly, 0) == 0);
  CHECK(period_end(BudgetPeriod::kTotal, 0) == kUnlimited);
}

}  // namespace
}  // namespace kavach::quota
