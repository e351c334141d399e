#include "quota/ledger.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/calendar.h"
#include "engine/check.h"
#include "engine/money.h"

namespace kavach::quota {
namespace {

constexpr BudgetPeriod kPeriods[kBudgetPeriods] = {BudgetPeriod::kDaily, BudgetPeriod::kMonthly,
                                                   BudgetPeriod::kTotal};

std::int64_t seconds_until(WallMicros when, WallMicros now) noexcept {
  if (when == kUnlimited) return 24 * 3'600;
  return std::max<std::int64_t>(1, (when - now + kMicrosPerSecond - 1) / kMicrosPerSecond);
}

}  // namespace

WallMicros OrgLedger::moment_of_day(WallMicros wall) const noexcept {
  return std::clamp(wall, start_of_day(day), start_of_day(day + 1) - 1);
}

void turn_period(OrgLedger& org, BudgetPeriod period, std::int64_t number) noexcept {
  const auto i = static_cast<std::size_t>(period);
  if (org.periods[i] == number) return;
  const Usage own = org.past_periods[i] == number ? org.past_own[i] : Usage{};
  org.past_periods[i] = std::exchange(org.periods[i], number);
  org.past_own[i] = std::exchange(org.own[i], own);
  org.others_cost[i] = 0;  // until the next answer
}

void OrgLedger::prefetch() const noexcept {
  const auto lines_of = [](const auto* object) {
    const auto* const bytes = reinterpret_cast<const char*>(object);
    for (std::size_t i = 0; i < sizeof(*object); i += 64) __builtin_prefetch(bytes + i);
  };
  lines_of(this);
  if (policy != nullptr) lines_of(policy);
  if (authority != nullptr) lines_of(authority.get());
}

void take_over(OrgLedger& org, const RenewReply& reply, Now asked) {
  org.ceiling = reply.ceiling;
  org.day_ends = asked.mono + reply.day_left_us;
  org.charged = reply.charged;
  org.held_elsewhere = reply.held_elsewhere;
  org.hungry = reply.hungry;
  org.learning = reply.learning;
  if (reply.burst_granted > 0) {
    // Where none was asked for, what is in hand stays.
    org.burst_units = reply.burst_granted;
    if (org.burst_second != reply.burst_second) org.burst_unused = 0;  // of another grant
    org.burst_second = reply.burst_second;
  }
  org.burst_left = reply.burst_left;
  org.burst_wait_us = reply.burst_wait_us;
}

void turn_day(OrgLedger& org, std::int64_t day) {
  if (day == org.day) return;
  const bool back = day == org.past_day;
  org.past_day = std::exchange(org.day, day);
  org.past_spent = std::exchange(org.spent, back ? org.past_spent : 0);
  org.past_reserved = std::exchange(org.reserved, back ? org.past_reserved : 0);
  org.ceiling = org.spent + org.reserved;
  org.day_ends = 0;
}

void give_back_burst(OrgLedger& org, RenewRequest& request) {
  request.burst_unused = std::exchange(org.burst_unused, 0) + std::exchange(org.burst_units, 0);
  request.burst_unused_second = org.burst_second;
}

// Kept for give_back_burst(): the authority counts it until then.
void give_up_burst(OrgLedger& org) {
  org.burst_unused += std::exchange(org.burst_units, 0);
}

// --- LocalFleet --------------------------------------------------------------------------------------------

FleetState& LocalFleet::authority_of(OrgLedger& org) {
  if (org.authority == nullptr) org.authority = std::make_unique<FleetState>(FleetState::Options{});
  return *org.authority;
}

void LocalFleet::note_burst(OrgLedger& org, WallMicros when, std::int64_t events) {
  authority_of(org).restore_burst(when, events);
}

Fleet::Answer LocalFleet::renew(OrgLedger& org, const Ask& ask, Now now) {
  // The system's clock may be set back; the authority's never goes back.
  latest_ = std::max(latest_, now.wall);
  RenewRequest request;
  request.node = 1;
  request.boot = 1;
  request.seq = ++seq_;
  request.need = ask.events_need;
  request.want = kUnlimited;
  request.limit = org.policy->events_per_day;
  request.burst_want = ask.burst_need;
  request.burst_limit = org.policy->burst_per_minute;
  if (ask.burst_need > 0 || now.mono >= org.burst_expires) give_back_burst(org, request);
  turn_day(org, period_number(BudgetPeriod::kDaily, latest_));
  request.day = org.day;
  request.spent = org.spent;
  request.keep = org.ceiling - org.spent;
  take_over(org, authority_of(org).renew(request, latest_, {}), now);
  org.burst_expires = now.mono;  // what this batch leaves goes back before the next
  return Answer::kDone;
}

// --- LedgerMetrics -----------------------------------------------------------------------------------------

void LedgerMetrics::add_to(MetricsRegistry& registry, std::uint32_t shard) const {
  const MetricsRegistry::Labels labels{{"shard", std::to_string(shard)}};
  const auto by_limit = [&](const char* name, const char* help, const char* limit, const Counter& counter) {
    auto with_limit = labels;
    with_limit["limit"] = limit;
    registry.add(name, help, counter, with_limit);
  };
  const auto refused = [&](const char* limit, const Counter& counter) {
    by_limit("kavach_quota_batches_refused_total", "Batches refused by a limit.", limit, counter);
  };
  const auto shadowed = [&](const char* limit, const Counter& counter) {
    by_limit("kavach_quota_batches_shadowed_total",
             "Batches that a limit in shadow mode would have refused or cut.", limit, counter);
  };
  refused("daily", daily_refused);
  refused("burst", burst_refused);
  refused("budget", budget_refused);
  shadowed("daily", daily_shadowed);
  shadowed("burst", burst_shadowed);
  shadowed("budget", budget_shadowed);
  registry.add("kavach_quota_unsettled_batches_total",
               "Batches told to come back, since it was not settled what is left of the day's quota.",
               unsettled_refused, labels);
  registry.add("kavach_quota_orgs", "Organizations that the ledgers remember.", orgs, labels);
}

// --- Ledger ------------------------------------------------------------------------------------------------

Ledger::Ledger(const LimitModes& modes, Fleet& fleet)
    : modes_(modes), fleet_(fleet), policies_(std::make_shared<const PolicyTable>(std::vector<Policy>{})) {}

void Ledger::install(std::shared_ptr<const PolicyTable> policies) {
  for (const auto& [id, org] : orgs_) {
    const Policy* policy = policies->find(id);
    const bool same_quota =
        policy != nullptr && org->policy != nullptr && policy->events_per_day == org->policy->events_per_day;
    // What is not reserved goes back, and is leased anew under the new limit.
    if (!same_quota) org->ceiling = org->spent + org->reserved;
    org->policy = policy;
  }
  policies_ = std::move(policies);
}

OrgLedger& Ledger::org(const Uuid& id) {
  auto& slot = orgs_[id];
  if (slot == nullptr) {
    slot = std::make_unique<OrgLedger>();
    slot->id = id;
    slot->policy = policies_->find(id);
    metrics_.orgs.set(static_cast<std::int64_t>(orgs_.size()));
  }
  return *slot;
}

Ledger::Outcome Ledger::reserve(OrgLedger& org, std::int64_t events, Now now, Take& take, Refusal& refusal) {
  refusal.clear();
  if (org.policy == nullptr) {
    // Its key is known already and its policy is on the way.
    refusal.reason = Reason::kBackpressure;
    return Outcome::kRefused;
  }
  if (!org.looked_after) fleet_.note_use(org);
  const Policy& policy = *org.policy;
  const bool day_is_over = org.day < 0 || now.mono >= org.day_ends;
  const bool has_daily_limit = policy.events_per_day != kUnlimited;
  const bool has_burst_limit = policy.burst_per_minute != kUnlimited;
  // One unit at least, so that a batch of which nothing is left finds out whether day and burst have any.
  const std::int64_t wanted = std::max<std::int64_t>(events, 1);
  const std::int64_t in_hand = day_is_over ? 0 : org.available();
  const bool burst_is_short = has_burst_limit && (org.burst_units < wanted || now.mono >= org.burst_expires);
  const Fleet::Ask ask{.events_need = has_daily_limit ? std::max<std::int64_t>(0, wanted - in_hand) : 0,
                       .events_batch = wanted,
                       .burst_need = burst_is_short ? wanted : 0};
  bool confirmed = true;
  if (day_is_over || ask.events_need > 0 || ask.burst_need > 0) {
    const Fleet::Answer answer = fleet_.renew(org, ask, now);
    if (answer == Fleet::Answer::kPending) return Outcome::kPending;
    confirmed = answer == Fleet::Answer::kDone;
  }
  if (!has_daily_limit && now.mono >= org.day_ends) {
    // Nothing is handed out, so nobody has to be asked what day it is.
    turn_day(org, period_number(BudgetPeriod::kDaily, now.wall));
    org.day_ends = now.mono + period_end(BudgetPeriod::kDaily, now.wall) - now.wall;
  }
  if (now.mono >= org.day_ends) {
    // The new day's quota is with an authority that cannot be reached.
    metrics_.unsettled_refused.add();
    refusal.reason = Reason::kBackpressure;
    return Outcome::kRefused;
  }

  const WallMicros accepted_at = org.moment_of_day(now.wall);
  // In the contract's order: daily quota, burst, budgets.
  std::int64_t fits = has_daily_limit ? std::clamp<std::int64_t>(org.available(), 0, events) : events;
  const bool daily_is_short = has_daily_limit && (fits < events || (events == 0 && org.available() <= 0));
  if (daily_is_short && modes_.daily == LimitMode::kShadow) {
    metrics_.daily_shadowed.add();
    fits = events;
  } else if (daily_is_short) {
    // A permanent refusal must be true for good: nothing may come back from a batch under way or another
    // node.
    if (!confirmed || org.reserved > 0 || org.held_elsewhere > 0 || org.learning) {
      metrics_.unsettled_refused.add();
      refusal.reason = Reason::kBackpressure;
      return Outcome::kRefused;
    }
    if (fits == 0) {
      metrics_.daily_refused.add();
      refuse(policy, Reason::kDailyLimit, policy.events_per_day,
             period_end(BudgetPeriod::kDaily, accepted_at), accepted_at, refusal);
      refusal.used = std::min(org.charged, policy.events_per_day);
      return Outcome::kRefused;
    }
  }
  // What nobody renewed in time is no longer in the window that it was granted from.
  if (!confirmed && now.mono >= org.burst_expires) give_up_burst(org);
  if (has_burst_limit && org.burst_units < std::max<std::int64_t>(fits, 1)) {
    if (modes_.burst == LimitMode::kShadow) {
      metrics_.burst_shadowed.add();
    } else if (!confirmed) {
      metrics_.unsettled_refused.add();
      refusal.reason = Reason::kBackpressure;
      return Outcome::kRefused;
    } else {
      metrics_.burst_refused.add();
      refuse(policy, Reason::kBurst, policy.burst_per_minute, now.wall + org.burst_wait_us, now.wall,
             refusal);
      return Outcome::kRefused;
    }
  }
  for (const BudgetPeriod period : kPeriods) turn_period(org, period, period_number(period, accepted_at));
  if (refuses_budget(org, accepted_at, refusal)) return Outcome::kRefused;

  const std::int64_t burst = std::min(org.burst_units, fits);
  org.burst_units -= burst;
  org.reserved += fits;
  take.events = fits;
  take.accepted_at = accepted_at;
  take.day = org.day;
  take.burst_units = burst;
  take.burst_second = org.burst_second;
  take.periods = org.periods;
  return Outcome::kTaken;
}

void Ledger::refuse(const Policy& policy, Reason reason, std::int64_t limit, WallMicros resume_at,
                    WallMicros now, Refusal& refusal) {
  refusal.clear();
  refusal.reason = reason;
  refusal.limit = limit;
  refusal.resume_at = resume_at;
  refusal.retry_after_s = seconds_until(resume_at, now);
  refusal.tier = policy.tier;
}

// Only money refuses; the batch that crosses the line was recorded, since it was spent.
bool Ledger::refuses_budget(const OrgLedger& org, WallMicros accepted_at, Refusal& refusal) {
  for (const Budget& budget : org.policy->budgets) {
    if (budget.type != BudgetType::kCost) continue;
    const auto i = static_cast<std::size_t>(budget.period);
    const std::int64_t used = saturating_add(org.own[i].cost, org.others_cost[i]);
    if (used < budget.limit) continue;
    if (modes_.budgets == LimitMode::kShadow) {
      metrics_.budget_shadowed.add();
      continue;
    }
    metrics_.budget_refused.add();
    refuse(*org.policy, Reason::kOrgBudget, budget.limit, period_end(budget.period, accepted_at), accepted_at,
           refusal);
    refusal.used = used;
    refusal.budget_type = budget.type;
    refusal.budget_period = budget.period;
    return true;
  }
  return false;
}

void Ledger::settle(OrgLedger& org, const Take& take, bool durable) {
  // What was taken on a day that has ended counts there, and nowhere now.
  if (take.day == org.day) {
    org.reserved -= take.events;
    if (durable) org.spent += take.events;
    KAVACH_DCHECK(org.reserved >= 0, "more was settled than reserved");
  } else if (take.day == org.past_day) {
    org.past_reserved -= take.events;
    if (durable) org.past_spent += take.events;
  }
  if (!durable) {
    if (take.burst_second == org.burst_second) org.burst_unused += take.burst_units;
    return;
  }
  for (std::size_t i = 0; i < kBudgetPeriods; ++i) {
    if (take.periods[i] == org.periods[i]) {
      org.own[i] += take.usage;
    } else if (take.periods[i] == org.past_periods[i]) {
      org.past_own[i] += take.usage;
    }
  }
}

RateState Ledger::rate_state(const OrgLedger& org, Now now) const {
  RateState state;
  if (org.policy == nullptr) return state;
  if (org.policy->events_per_day != kUnlimited) {
    state.daily_limit = org.policy->events_per_day;
    // Without a batch that counts, the ledger may still be at a day that is over.
    const WallMicros wall = now.mono < org.day_ends ? org.moment_of_day(now.wall) : now.wall;
    // What this node holds is charged, and still there.
    const std::int64_t used = period_number(BudgetPeriod::kDaily, wall) == org.day
                                  ? std::max(org.spent + org.reserved, org.charged - org.available())
                                  : 0;
    state.daily_left = std::clamp<std::int64_t>(state.daily_limit - used, 0, state.daily_limit);
    state.daily_reset_s = seconds_until(period_end(BudgetPeriod::kDaily, wall), wall);
  }
  if (org.policy->burst_per_minute != kUnlimited) {
    state.burst_limit = org.policy->burst_per_minute;
    state.burst_left =
        std::clamp<std::int64_t>(saturating_add(org.burst_left, org.burst_units), 0, state.burst_limit);
    state.burst_reset_s = (org.burst_wait_us + kMicrosPerSecond - 1) / kMicrosPerSecond;
  }
  return state;
}

std::int64_t Ledger::agent_places(OrgLedger& org, Now now) {
  if (org.policy == nullptr || org.policy->agents_max == kUnlimited) return kUnlimited;
  return std::max<std::int64_t>(0, org.policy->agents_max - org.roster.size(now.wall));
}

void Ledger::restore_usage(const Uuid& id, BudgetPeriod period, std::int64_t number, const Usage& usage) {
  OrgLedger& restored = org(id);
  turn_period(restored, period, number);
  restored.own[static_cast<std::size_t>(period)] += usage;
  if (period != BudgetPeriod::kDaily) return;
  turn_day(restored, number);
  restored.spent = restored.ceiling = saturating_add(restored.spent, usage.events);
  fleet_.note_restored(restored);
}

void Ledger::restore_burst(const Uuid& id, WallMicros when, std::int64_t events) {
  fleet_.note_burst(org(id), when, events);
}

void Ledger::restore_agent(const Uuid& id, std::uint64_t fingerprint, WallMicros seen) {
  org(id).roster.restore(fingerprint, seen);
}

}  // namespace kavach::quota
