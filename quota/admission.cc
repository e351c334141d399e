#include "quota/admission.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/check.h"
#include "engine/money.h"

namespace kavach::quota {
namespace {

// Keys ahead of the one at hand that are brought into the cache: one miss costs as much as a few claims.
constexpr std::size_t kPrefetchAhead = 8;
// Times that a batch asks the fleet before it is told to come back later.
constexpr std::uint32_t kTriesMax = 4;

// What `admitted` says of an event while it is being decided; 0 and 1 are what the asker reads.
constexpr std::uint8_t kDuplicate = 0;
constexpr std::uint8_t kAdmitted = 1;
constexpr std::uint8_t kTwin = 2;      // of an earlier event of the same batch
constexpr std::uint8_t kRejected = 3;  // for its agent
constexpr std::uint8_t kCut = 4;       // beyond the day's quota

void append(WaitingBatches& waiting, AdmissionRequest& request) noexcept {
  request.next_waiting = nullptr;
  (waiting.empty() ? waiting.first : waiting.last->next_waiting) = &request;
  waiting.last = &request;
}

std::uint32_t agent_index(const AdmissionRequest& request, std::size_t event) {
  return request.agent_of.empty() ? 0 : request.agent_of[event];
}

}  // namespace

void AdmissionMetrics::add_to(MetricsRegistry& registry, std::uint32_t shard) const {
  const MetricsRegistry::Labels labels{{"shard", std::to_string(shard)}};
  registry.add("kavach_quota_events_admitted_total", "Events admitted.", admitted_events, labels);
  registry.add("kavach_quota_events_rejected_total", "Events beyond the day's quota.", quota_rejected_events,
               labels);
  registry.add("kavach_quota_agent_events_rejected_total", "Events of agents over the cap or killed.",
               agent_rejected_events, labels);
  auto of_agents = labels;
  of_agents["limit"] = "agents";
  registry.add("kavach_quota_batches_refused_total", "Batches refused by a limit.", agent_refused_batches,
               of_agents);
  registry.add("kavach_quota_batches_shadowed_total",
               "Batches that a limit in shadow mode would have refused or cut.", agent_shadowed_batches,
               of_agents);
  registry.add("kavach_dedup_hits_total", "Events dropped as duplicates.", duplicate_events, labels);
  registry.add("kavach_dedup_waits_total", "Batches that waited for another batch with the same key.",
               waited_batches, labels);
  registry.add("kavach_quota_busy_batches_total", "Batches refused because too many were under way.",
               busy_batches, labels);
  registry.add("kavach_dedup_keys", "Idempotency keys remembered.", dedup_keys, labels);
  registry.add("kavach_dedup_bytes", "Memory of the remembered keys.", dedup_bytes, labels);
  registry.add("kavach_dedup_evicted_keys",
               "Keys forgotten before their window ended, at quota.dedup_keys_max.", dedup_evicted, labels);
}

Admission::Admission(const DedupTable::Options& dedup, Ledger& ledger) : dedup_(dedup), ledger_(ledger) {}

std::uint32_t Admission::take_claim() {
  if (free_claim_ != kNoClaim) return std::exchange(free_claim_, claims_[free_claim_].next_free);
  if (claims_.size() == DedupTable::kClaimsMax) return kNoClaim;
  claims_.emplace_back();
  return static_cast<std::uint32_t>(claims_.size() - 1);
}

void Admission::free_claim(std::uint32_t claim) noexcept {
  claims_[claim].next_free = std::exchange(free_claim_, claim);
}

void Admission::decide(AdmissionRequest& request) {
  // All at the same time: the first keys' places, and what there is of the organization.
  for (std::size_t i = 0; i < std::min(request.keys.size(), kPrefetchAhead); ++i)
    dedup_.prefetch(request.keys[i]);
  OrgLedger& org = ledger_.org(request.org);
  org.prefetch();
  request.refusal.clear();  // of an earlier use of the request
  tally_ = {};
  const std::uint32_t claim = take_claim();
  if (claim == kNoClaim) {
    metrics_.busy_batches.add();
    return refuse(org, request, Reason::kBackpressure);
  }
  request.admitted.assign(request.keys.size(), kAdmitted);
  const Fleet::Answer agents = judge_agents(org, request);
  if (agents != Fleet::Answer::kDone) {
    free_claim(claim);
    if (agents == Fleet::Answer::kPending) return wait_for_fleet(org, request);
    return refuse(org, request, Reason::kBackpressure);
  }
  claims_[claim].number = dedup_.begin(claim, request.now.wall);
  if (!claim_keys(request, claim)) return;  // it waits, and will be decided anew
  const auto countable = static_cast<std::int64_t>(request.admitted.size() - tally_.sum());
  if (countable == 0 && tally_.duplicates > 0) {
    // Stored already: a repetition is never refused.
    release(claim);
    request.verdict = Verdict::kNothingToWrite;
    return finish(org, request);
  }

  Take take;
  switch (ledger_.reserve(org, countable, request.now, take, request.refusal)) {
    case Ledger::Outcome::kTaken:
      break;
    case Ledger::Outcome::kRefused:
      release(claim);
      request.verdict = Verdict::kRefused;
      return finish(org, request);
    case Ledger::Outcome::kPending:
      release(claim);
      return wait_for_fleet(org, request);
  }
  if (countable == 0) {
    // Nothing stood before the agents' cap.
    release(claim);
    metrics_.agent_refused_batches.add();
    request.refusal.limit = org.policy->agents_max;
    request.refusal.tier = org.policy->tier;
    return refuse(org, request, Reason::kAgentLimit);
  }
  if (take.events < countable) cut(request, claim, take.events);
  admit(org, request, claim, take);
  finish(org, request);
}

void Admission::wait_for_fleet(OrgLedger& org, AdmissionRequest& request) {
  if (++request.tries > kTriesMax) return refuse(org, request, Reason::kBackpressure);
  append(org.waiting, request);
}

// A name is let in when it is known or a place is left; places are only taken with the verdict. Where the
// fleet shares them, new names have to be asked for first.
Fleet::Answer Admission::judge_agents(OrgLedger& org, AdmissionRequest& request) {
  request.agent_answers.assign(request.agents.size(), AgentAnswer::kAdmitted);
  agents_shadowed_ = false;
  if (org.policy == nullptr) return Fleet::Answer::kDone;
  std::int64_t places = ledger_.agent_places(org, request.now);
  if (places != kUnlimited && ledger_.fleet().shares_agents()) {
    new_agents_.clear();
    for (const std::uint64_t agent : request.agents) {
      if (!org.policy->is_killed(agent) && !org.roster.contains(agent, request.now.wall))
        new_agents_.push_back(agent);
    }
    if (!new_agents_.empty()) {
      const Fleet::Answer answer = ledger_.fleet().claim_agents(org, new_agents_, request.now);
      if (answer != Fleet::Answer::kDone) return answer;
    }
    places = 0;  // who has a place is in the roster by now
  }
  bool all = true;
  for (std::size_t i = 0; i < request.agents.size(); ++i) {
    if (org.policy->is_killed(request.agents[i])) {
      request.agent_answers[i] = AgentAnswer::kKilled;
    } else if (places == kUnlimited || org.roster.contains(request.agents[i], request.now.wall)) {
      continue;
    } else if (places > 0) {
      --places;
      continue;
    } else if (ledger_.modes().agents == LimitMode::kShadow) {
      agents_shadowed_ = true;
      continue;
    } else {
      request.agent_answers[i] = AgentAnswer::kOverCap;
    }
    all = false;
  }
  if (all) return Fleet::Answer::kDone;
  for (std::size_t i = 0; i < request.admitted.size(); ++i) {
    if (request.agent_answers[agent_index(request, i)] == AgentAnswer::kAdmitted) continue;
    request.admitted[i] = kRejected;
    ++tally_.of_agents;
  }
  return Fleet::Answer::kDone;
}

// Claims the request's keys; false when another batch under way holds one of them: then nothing is claimed,
// and the request waits for that batch.
bool Admission::claim_keys(AdmissionRequest& request, std::uint32_t claim) {
  const std::size_t events = request.keys.size();
  const DedupTable::Number number = claims_[claim].number;
  for (std::size_t i = 0; i < events; ++i) {
    if (i + kPrefetchAhead < events) dedup_.prefetch(request.keys[i + kPrefetchAhead]);
    if (request.keys[i].is_none() || request.admitted[i] != kAdmitted) continue;
    const DedupTable::Answer answer = dedup_.claim(request.keys[i], number);
    if (answer.found == DedupTable::Found::kClaimed) continue;
    if (answer.found == DedupTable::Found::kPending) {
      hold_keys(claims_[claim], request, i);
      release(claim);
      metrics_.waited_batches.add();
      append(claims_[answer.holder].waiting, request);
      return false;
    }
    request.admitted[i] = answer.found == DedupTable::Found::kOwn ? kTwin : kDuplicate;
    ++tally_.duplicates;
  }
  hold_keys(claims_[claim], request, events);
  return true;
}

// Notes which keys of the first `events` events the claim holds.
void Admission::hold_keys(Claim& claim, const AdmissionRequest& request, std::size_t events) {
  claim.keys.reserve(request.keys.size());
  for (std::size_t i = 0; i < events; ++i) {
    if (request.admitted[i] == kAdmitted && !request.keys[i].is_none()) claim.keys.push_back(request.keys[i]);
  }
}

// Only the first `fits` events are admitted. The others are rejected, and so are the twins of rejected ones.
void Admission::cut(AdmissionRequest& request, std::uint32_t claim, std::int64_t fits) {
  std::vector<DedupKey>& held = claims_[claim].keys;
  const DedupTable::Number number = claims_[claim].number;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < request.admitted.size(); ++i) {
    if (request.admitted[i] == kAdmitted) {
      const bool has_key = !request.keys[i].is_none();
      if (fits > 0) {
        --fits;
        if (has_key) ++kept;
        continue;
      }
      if (has_key) dedup_.release(request.keys[i], number);
      request.admitted[i] = kCut;
      ++tally_.cut;
    } else if (request.admitted[i] == kTwin) {
      // Still held when the first of them is admitted.
      if (dedup_.claim(request.keys[i], number).found == DedupTable::Found::kOwn) continue;
      dedup_.release(request.keys[i], number);
      request.admitted[i] = kCut;
      --tally_.duplicates;
      ++tally_.cut;
    }
  }
  metrics_.quota_rejected_events.add(tally_.cut);
  held.resize(kept);  // claimed in the order of the events
}

void Admission::admit(OrgLedger& org, AdmissionRequest& request, std::uint32_t claim, const Take& take) {
  Claim& made = claims_[claim];
  made.org = &org;
  made.take = take;
  Usage& usage = made.take.usage;
  const bool one_agent = request.agent_of.empty();
  agent_used_.assign(request.agents.size(), one_agent ? 1 : 0);
  for (std::size_t i = 0; i < request.admitted.size(); ++i) {
    if (request.admitted[i] != kAdmitted) continue;
    if (!one_agent) agent_used_[request.agent_of[i]] = 1;
    usage += usage_of(request.events[i]);
  }
  for (std::size_t i = 0; i < request.agents.size(); ++i) {
    if (agent_used_[i] == 0) continue;
    org.roster.take(request.agents[i], request.now.wall);
    made.agents.push_back(request.agents[i]);
  }
  if (agents_shadowed_) metrics_.agent_shadowed_batches.add();
  request.verdict = Verdict::kAdmitted;
  request.claim = claim;
  request.accepted_at = take.accepted_at;
}

// Lets go of the keys that a claim holds.
void Admission::release_keys(Claim& claim) noexcept {
  for (const DedupKey& key : claim.keys) dedup_.release(key, claim.number);
  claim.keys.clear();
}

// Gives back a claim before it was lent out.
void Admission::release(std::uint32_t claim) noexcept {
  release_keys(claims_[claim]);
  dedup_.end(claims_[claim].number);
  free_claim(claim);
}

void Admission::refuse(const OrgLedger& org, AdmissionRequest& request, Reason reason) {
  request.verdict = Verdict::kRefused;
  request.refusal.reason = reason;
  finish(org, request);
}

void Admission::finish(const OrgLedger& org, AdmissionRequest& request) {
  request.tries = 0;
  if (request.wants_rate) request.rate = ledger_.rate_state(org, request.now);
  request.rejected_events = tally_.of_agents + tally_.cut;
  request.admitted_events = static_cast<std::uint32_t>(request.admitted.size()) - tally_.sum();
  if (tally_.sum() > 0) {
    for (std::uint8_t& one : request.admitted) one = one == kAdmitted ? 1 : 0;
  }
  if (request.verdict != Verdict::kRefused) {
    metrics_.admitted_events.add(request.admitted_events);
    metrics_.duplicate_events.add(tally_.duplicates);
  }
  if (request.verdict != Verdict::kRefused || request.refusal.reason == Reason::kAgentLimit)
    metrics_.agent_rejected_events.add(tally_.of_agents);
  request.decided(request);
}

void Admission::settle(std::uint32_t claim, bool durable, Now now) {
  KAVACH_CHECK(claim < claims_.size(), "settling a claim that was never made");
  Claim& settled = claims_[claim];
  if (!durable) release_keys(settled);
  settled.keys.clear();
  dedup_.end(settled.number);
  for (const std::uint64_t agent : settled.agents) settled.org->roster.settle(agent, durable, now.wall);
  settled.agents.clear();
  ledger_.settle(*settled.org, settled.take, durable);
  WaitingBatches waiting = std::exchange(settled.waiting, {});
  free_claim(claim);
  // After a failure the first one takes over the keys and the others wait for it.
  decide_anew(waiting, now);
}

void Admission::resume(OrgLedger& org, Now now) {
  WaitingBatches waiting = std::exchange(org.waiting, {});
  decide_anew(waiting, now);
}

// In order of arrival, with the time that it is by now.
void Admission::decide_anew(WaitingBatches& waiting, Now now) {
  while (!waiting.empty()) {
    AdmissionRequest& request = *waiting.first;
    waiting.first = request.next_waiting;  // before it goes back to its owner, or waits for something else
    request.now = now;
    decide(request);
  }
}

void Admission::on_tick(WallMicros now) {
  dedup_.sweep(now);
  metrics_.dedup_keys.set(static_cast<std::int64_t>(dedup_.size()));
  metrics_.dedup_bytes.set(static_cast<std::int64_t>(dedup_.bytes()));
  metrics_.dedup_evicted.set(static_cast<std::int64_t>(dedup_.evicted()));
}

}  // namespace kavach::quota
