// Admission: the one call that decides a batch, on the home shard of its org.
//
// Checked in this order, which is also the order of refusal (contract/agentkavach.md 2.3): the day's quota,
// burst, budgets, agents, duplicates. An event that is not admitted counts in nothing. What a batch takes
// (keys, quota, places of agents) is held by a claim from the verdict on; it becomes final when the journal
// has the batch (settle(durable)), and is free again when the journal failed.
//
// A batch that carries a key which another batch under way has claimed waits, holding nothing, for that
// batch's outcome: so its own answer is never given before the event is durable, and no wait can be circular.
// Likewise a batch that needs the fleet's word waits for it, holding nothing, and is decided anew.
//
// Once its vectors have grown to the batches that come, and the roster knows their agents, a verdict and its
// settlement allocate nothing on a node that is its own fleet (tests/quota/allocation_test.cc).
//
// Owner thread only: the home shard. A request is lent by the shard that received the batch, from decide()
// until `decided` is called.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "engine/clock.h"
#include "engine/event.h"
#include "engine/metrics.h"
#include "quota/dedup.h"
#include "quota/ledger.h"

namespace kavach::quota {

enum class Verdict : std::uint8_t {
  kAdmitted,        // `admitted` says which events; settle() must follow
  kNothingToWrite,  // every event is durable already or dropped for its agent: nothing to settle
  kRefused,         // the whole batch: `refusal` says why
};

enum class AgentAnswer : std::uint8_t { kAdmitted, kOverCap, kKilled };

struct AdmissionRequest {
  // From the asker.
  Uuid org;
  Now now;                            // when it is decided: later than it came, for a batch that had to wait
  std::span<const Event> events;      // only their numbers are read
  std::vector<DedupKey> keys;         // one per event; is_none() where it has none
  std::vector<std::uint64_t> agents;  // fingerprints of the batch's agents, each once
  std::vector<std::uint16_t> agent_of;  // of each event, an index into `agents`; empty when there is but one
  bool wants_rate = false;              // whether `rate` is asked for
  void (*decided)(AdmissionRequest& request) noexcept = nullptr;  // called on the home shard, once

  // From the verdict.
  Verdict verdict = Verdict::kRefused;
  Refusal refusal;
  std::vector<std::uint8_t> admitted;  // one byte per event
  std::uint32_t admitted_events = 0;
  std::uint32_t rejected_events = 0;       // the others are duplicates, which count as accepted
  std::vector<AgentAnswer> agent_answers;  // by `agents`
  std::uint32_t claim = 0;                 // for settle()
  WallMicros accepted_at = 0;              // when the admitted events count as received
  RateState rate;                          // after the verdict, when it is wanted

  // The admission's own, between two tries.
  std::uint32_t tries = 0;
  AdmissionRequest* next_waiting = nullptr;
};

struct AdmissionMetrics {
  Counter admitted_events, duplicate_events, waited_batches, busy_batches;
  Counter agent_rejected_events, agent_refused_batches, agent_shadowed_batches, quota_rejected_events;
  Gauge dedup_keys, dedup_bytes, dedup_evicted;
  void add_to(MetricsRegistry& registry, std::uint32_t shard) const;
};

class Admission {
 public:
  // REQUIRES: the ledger outlives this, and lives on the same shard.
  Admission(const DedupTable::Options& dedup, Ledger& ledger);

  // Calls request.decided() now, or when what it waits for has happened.
  void decide(AdmissionRequest& request);
  // The outcome of what decide() admitted. Exactly once per claim.
  void settle(std::uint32_t claim, bool durable, Now now);
  // The fleet has spoken about `org`, or will not: the batches that waited for it are decided anew.
  void resume(OrgLedger& org, Now now);

  // At start, before the shards run.
  DedupTable& dedup() noexcept { return dedup_; }
  // About every 100 ms.
  void on_tick(WallMicros now);

  const AdmissionMetrics& metrics() const noexcept { return metrics_; }

 private:
  struct Claim {
    OrgLedger* org = nullptr;
    Take take;
    DedupTable::Number number = 0;
    std::vector<DedupKey> keys;         // that it holds
    std::vector<std::uint64_t> agents;  // whose places it takes
    WaitingBatches waiting;
    std::uint32_t next_free = kNoClaim;
  };
  // How many events of the batch that is being decided are not admitted.
  struct Tally {
    std::uint32_t of_agents = 0;   // rejected for their agent
    std::uint32_t duplicates = 0;  // of durable ones or within the batch
    std::uint32_t cut = 0;         // beyond the day's quota

    std::uint32_t sum() const noexcept { return of_agents + duplicates + cut; }
  };
  static constexpr std::uint32_t kNoClaim = DedupTable::kClaimsMax;

  std::uint32_t take_claim();  // kNoClaim when all are under way
  void free_claim(std::uint32_t claim) noexcept;

  Fleet::Answer judge_agents(OrgLedger& org, AdmissionRequest& request);
  void wait_for_fleet(OrgLedger& org, AdmissionRequest& request);
  bool claim_keys(AdmissionRequest& request, std::uint32_t claim);
  static void hold_keys(Claim& claim, const AdmissionRequest& request, std::size_t events);
  void cut(AdmissionRequest& request, std::uint32_t claim, std::int64_t fits);
  void admit(OrgLedger& org, AdmissionRequest& request, std::uint32_t claim, const Take& take);
  void release_keys(Claim& claim) noexcept;
  void release(std::uint32_t claim) noexcept;
  void refuse(const OrgLedger& org, AdmissionRequest& request, Reason reason);
  void finish(const OrgLedger& org, AdmissionRequest& request);
  void decide_anew(WaitingBatches& waiting, Now now);

  DedupTable dedup_;
  Ledger& ledger_;
  std::deque<Claim> claims_;  // a deque: a Claim's vectors stay where they are while others are added
  std::uint32_t free_claim_ = kNoClaim;  // the first of a list: the one that was used last is warm
  Tally tally_;
  // Kept for their memory.
  std::vector<std::uint8_t> agent_used_;
  std::vector<std::uint64_t> new_agents_;
  bool agents_shadowed_ = false;  // the agent cap would have cut or refused the batch that is being decided
  AdmissionMetrics metrics_;
};

}  // namespace kavach::quota
