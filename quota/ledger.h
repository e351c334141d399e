// Ledger: the live counters of every organization whose home is this shard; plain integers, one writer.
//
// An organization spends only what this node holds of its allowance. What it holds comes from a Fleet: from
// the node itself when there is no Redis (LocalFleet), from Redis otherwise. Spending is reserve() with the
// verdict, then settle() with the receipt: final when the batch is durable, given back when it is not.
//
// Owner thread only: the home shard. Nothing here blocks; time is an argument. Protocol and bounds:
// DESIGN.md.
#pragma once

#include <array>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/clock.h"
#include "engine/metrics.h"
#include "engine/money.h"
#include "quota/fleet_state.h"
#include "quota/limits.h"
#include "quota/roster.h"

namespace kavach::quota {

struct AdmissionRequest;
struct Lease;  // what a LeaseKeeper knows of one organization

struct Now {
  WallMicros wall = 0;
  MonoMicros mono = 0;
};

// Batches that wait for the same thing, in order of arrival; linked through the requests themselves.
struct WaitingBatches {
  AdmissionRequest* first = nullptr;
  AdmissionRequest* last = nullptr;
  bool empty() const noexcept { return first == nullptr; }
};

// What a batch takes from its organization.
struct Take {
  std::int64_t events = 0;
  // When it counts as received: within the day that it was taken from, whatever this node's clock says.
  WallMicros accepted_at = 0;
  std::int64_t day = 0;
  std::int64_t burst_units = 0;
  std::int64_t burst_second = 0;
  Usage usage;  // set by the caller, of the events that were admitted
  std::array<std::int64_t, kBudgetPeriods> periods{};
};

// One organization on its home shard.
struct OrgLedger {
  // What leads to other places of memory, in one line of the cache.
  Uuid id;
  const Policy* policy = nullptr;         // null: not in the store's directory (yet)
  std::unique_ptr<FleetState> authority;  // only on a node that is its own fleet (LocalFleet)
  std::shared_ptr<Lease> lease;  // only in a fleet; shared_ptr for its deleter: Lease is incomplete here
  WaitingBatches waiting;        // for the fleet's word on this organization
  bool looked_after = false;     // by its Fleet, since it is in use

  // Events of the day.
  std::int64_t day = -1;      // the authority's; -1: nothing was leased yet
  MonoMicros day_ends = 0;    // by this node's steady clock
  std::int64_t spent = 0;     // settled
  std::int64_t reserved = 0;  // by batches under way
  std::int64_t ceiling = 0;   // spent + reserved may reach this
  // The day before (or, when the authority's clock was set back, behind) `day`.
  std::int64_t past_day = -1;
  std::int64_t past_spent = 0;
  std::int64_t past_reserved = 0;
  // Burst units in hand.
  std::int64_t burst_units = 0;
  std::int64_t burst_second = 0;
  MonoMicros burst_expires = 0;
  std::int64_t burst_unused = 0;  // of burst_second, to be given back

  // The last word of the authority.
  std::int64_t charged = 0;
  std::int64_t held_elsewhere = 0;
  std::int64_t burst_left = kUnlimited;
  std::int64_t burst_wait_us = 0;
  bool hungry = false;
  bool learning = false;

  // Use in the running day, month and in total: this node's own, and of the others' what they had spent, as
  // last heard.
  std::array<std::int64_t, kBudgetPeriods> periods{-1, -1, 0};
  std::array<Usage, kBudgetPeriods> own{};
  std::array<NanoDollars, kBudgetPeriods> others_cost{};
  // Its own in the period before (or behind) those: clocks that disagree around midnight go there and back.
  std::array<std::int64_t, kBudgetPeriods> past_periods{-1, -1, -1};
  std::array<Usage, kBudgetPeriods> past_own{};

  Roster roster;

  std::int64_t available() const noexcept { return ceiling - spent - reserved; }
  // The moment of `day` that is nearest to `wall`: the authority says which day it is, this node's clock only
  // how late in it. So what is stored counts on the same day after a restart.
  WallMicros moment_of_day(WallMicros wall) const noexcept;
  // Brings all that a verdict reads into the cache, for a batch whose organization was not used for a while.
  void prefetch() const noexcept;
};

// A period begins: what was used before counts only if it comes back. The total is a period without an end.
void turn_period(OrgLedger& org, BudgetPeriod period, std::int64_t number) noexcept;
// What the authority said becomes the ledger's. `asked` is when the question was sent: what the answer says
// of time runs from then.
void take_over(OrgLedger& org, const RenewReply& reply, Now asked);
// It is another day: nothing of it is held yet, and what is under way belongs to the day before.
void turn_day(OrgLedger& org, std::int64_t day);
// What is left of the burst grant is not spent any more.
void give_up_burst(OrgLedger& org);
// At most one burst grant is in hand: what is left of it goes back with the request for the next.
void give_back_burst(OrgLedger& org, RenewRequest& request);

// Where allowance comes from. Owner thread only.
class Fleet {
 public:
  virtual ~Fleet() = default;
  struct Ask {
    std::int64_t events_need = 0;   // beyond what is in hand
    std::int64_t events_batch = 0;  // with it
    std::int64_t burst_need = 0;
  };
  enum class Answer : std::uint8_t {
    kDone,     // the ledger is up to date
    kPending,  // asked; the caller hears of it by its own means
    kAway,     // the authority cannot be reached now
  };
  // Brings `org` up to date with the authority and leases what is asked for, if it is there.
  virtual Answer renew(OrgLedger& org, const Ask& ask, Now now) = 0;
  // `org` is used, and was not looked after.
  virtual void note_use(OrgLedger& org) { org.looked_after = true; }
  // At start: `org` was used by this node before.
  virtual void note_restored(OrgLedger&) {}
  // Likewise `events` in the second that contains `when`; ascending. Nothing to do where others remember it.
  virtual void note_burst(OrgLedger&, WallMicros /*when*/, std::int64_t /*events*/) {}
  // Whether places of agents come from claim_agents(); otherwise the roster is all there is.
  virtual bool shares_agents() const noexcept = 0;
  // Asks for places for agents that are not in `org.roster`; those that get one are in it afterwards.
  virtual Answer claim_agents(OrgLedger& org, std::span<const std::uint64_t> fingerprints, Now now) = 0;
};

// The node is its own authority: everything is at hand, and what is not there is not anywhere.
class LocalFleet final : public Fleet {
 public:
  Answer renew(OrgLedger& org, const Ask& ask, Now now) override;
  void note_burst(OrgLedger& org, WallMicros when, std::int64_t events) override;
  bool shares_agents() const noexcept override { return false; }
  Answer claim_agents(OrgLedger&, std::span<const std::uint64_t>, Now) override { return Answer::kDone; }

 private:
  static FleetState& authority_of(OrgLedger& org);

  WallMicros latest_ = 0;
  std::uint64_t seq_ = 0;
};

// Why a batch is not taken, in the words of the contract (contract/agentkavach.md 2.4).
enum class Reason : std::uint8_t { kNone, kDailyLimit, kBurst, kOrgBudget, kAgentLimit, kBackpressure };

// Of a limit where that says something; otherwise only the reason. One that is used again keeps the memory of
// `tier`, a copy, since the policy may be gone when the answer is written.
struct Refusal {
  Reason reason = Reason::kNone;
  std::int64_t limit = 0;
  std::int64_t used = 0;
  WallMicros resume_at = 0;
  std::int64_t retry_after_s = 1;
  std::string tier = {};
  BudgetType budget_type = BudgetType::kCost;
  BudgetPeriod budget_period = BudgetPeriod::kDaily;

  // As if it was new.
  void clear() noexcept {
    reason = Reason::kNone;
    limit = used = resume_at = 0;
    retry_after_s = 1;
    tier.clear();
    budget_type = BudgetType::kCost;
    budget_period = BudgetPeriod::kDaily;
  }
};

// What is left, for the RateLimit header fields. kUnlimited where there is no limit.
struct RateState {
  std::int64_t daily_limit = kUnlimited;
  std::int64_t daily_left = kUnlimited;
  std::int64_t daily_reset_s = 0;
  std::int64_t burst_limit = kUnlimited;
  std::int64_t burst_left = kUnlimited;
  std::int64_t burst_reset_s = 0;
};

struct LedgerMetrics {
  Counter daily_refused, burst_refused, budget_refused, unsettled_refused;  // batches
  Counter daily_shadowed, burst_shadowed, budget_shadowed;
  Gauge orgs;
  void add_to(MetricsRegistry& registry, std::uint32_t shard) const;
};

class Ledger {
 public:
  Ledger(const LimitModes& modes, Fleet& fleet);

  // New policies, from the next batch on. The table outlives its installation here by being shared.
  void install(std::shared_ptr<const PolicyTable> policies);
  void set_modes(const LimitModes& modes) { modes_ = modes; }

  // The organization's ledger, made when it is missing. The reference stays valid.
  OrgLedger& org(const Uuid& id);

  enum class Outcome : std::uint8_t {
    kTaken,    // `take` says how much: up to what was asked for
    kRefused,  // `refusal` says why
    kPending,  // the fleet was asked; try again when it has answered
  };
  // Reserves up to `events` events: all of them, or, where the day's quota ends, those that still fit.
  // Nothing is reserved unless the outcome is kTaken. With 0 events it only says what would be refused.
  Outcome reserve(OrgLedger& org, std::int64_t events, Now now, Take& take, Refusal& refusal);
  // The outcome of what reserve() took. Exactly once per take.
  void settle(OrgLedger& org, const Take& take, bool durable);

  // As far as this node knows.
  RateState rate_state(const OrgLedger& org, Now now) const;

  // Agents: how many more may become active now; kUnlimited when nothing limits them.
  std::int64_t agent_places(OrgLedger& org, Now now);
  Fleet& fleet() noexcept { return fleet_; }

  // At start, before the first batch: what was used by this node in the running periods and in those beside
  // them. The numbers of one period ascend: the last one, and the one before it, are kept.
  void restore_usage(const Uuid& org, BudgetPeriod period, std::int64_t number, const Usage& usage);
  void restore_burst(const Uuid& org, WallMicros when, std::int64_t events);
  void restore_agent(const Uuid& org, std::uint64_t fingerprint, WallMicros seen);

  const LimitModes& modes() const noexcept { return modes_; }
  const LedgerMetrics& metrics() const noexcept { return metrics_; }
  std::size_t org_count() const noexcept { return orgs_.size(); }

 private:
  // The reason, and what all limits have in common; then the caller adds its own.
  static void refuse(const Policy& policy, Reason reason, std::int64_t limit, WallMicros resume_at,
                     WallMicros now, Refusal& refusal);
  bool refuses_budget(const OrgLedger& org, WallMicros accepted_at, Refusal& refusal);

  LimitModes modes_;
  Fleet& fleet_;
  std::shared_ptr<const PolicyTable> policies_;
  boost::unordered_flat_map<Uuid, std::unique_ptr<OrgLedger>, UuidHash> orgs_;
  LedgerMetrics metrics_;
};

}  // namespace kavach::quota
