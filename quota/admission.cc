#include "quota/admission.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/check.h"

namespace kavach::quota {
namespace {

// Keys ahead of the one at hand that are brought into the cache: one miss costs as much as a few claims.
constexpr std::size_t kPrefetchAhead = 8;

}  // namespace

void AdmissionMetrics::add_to(MetricsRegistry& registry, std::uint32_t shard) const {
  const MetricsRegistry::Labels labels{{"shard", std::to_string(shard)}};
  registry.add("kavach_quota_events_admitted_total", "Events admitted.", admitted_events, labels);
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

Admission::Admission(const DedupTable::Options& dedup) : dedup_(dedup) {}

void Admission::decide(AdmissionRequest& request) {
  std::uint32_t claim = 0;
  if (!free_claims_.empty()) {
    claim = free_claims_.back();
    free_claims_.pop_back();
  } else if (claims_.size() < DedupTable::kClaimsMax) {
    claim = static_cast<std::uint32_t>(claims_.size());
    claims_.emplace_back();
  } else {
    metrics_.busy_batches.add();
    request.verdict = Verdict::kBusy;
    request.decided(request);
    return;
  }
  if (!claim_keys(request, claim)) {
    free_claims_.push_back(claim);
    return;  // it waits, and will be decided anew
  }
  const std::size_t events = request.keys.size();
  request.admitted_events = static_cast<std::uint32_t>(
      events - static_cast<std::size_t>(std::count(request.admitted.begin(), request.admitted.end(), 0)));
  metrics_.admitted_events.add(request.admitted_events);
  metrics_.duplicate_events.add(events - request.admitted_events);
  if (request.admitted_events == 0) {
    free_claims_.push_back(claim);
    request.verdict = Verdict::kDuplicate;
  } else {
    request.verdict = Verdict::kAdmitted;
    request.claim = claim;
  }
  request.decided(request);
}

// Claims the request's keys; false when another batch under way holds one of them: then nothing is claimed,
// and the request waits for that batch.
bool Admission::claim_keys(AdmissionRequest& request, std::uint32_t claim) {
  const std::size_t events = request.keys.size();
  std::vector<DedupKey>& held = claims_[claim].keys;
  request.admitted.assign(events, 1);
  for (std::size_t i = 0; i < std::min(events, kPrefetchAhead); ++i) dedup_.prefetch(request.keys[i]);
  for (std::size_t i = 0; i < events; ++i) {
    if (i + kPrefetchAhead < events) dedup_.prefetch(request.keys[i + kPrefetchAhead]);
    if (request.keys[i].is_none()) continue;
    const DedupTable::Answer answer = dedup_.claim(request.keys[i], claim, request.now);
    switch (answer.found) {
      case DedupTable::Found::kClaimed:
        held.push_back(request.keys[i]);
        break;
      case DedupTable::Found::kOwn:
      case DedupTable::Found::kRemembered:
        request.admitted[i] = 0;
        break;
      case DedupTable::Found::kPending:
        for (const DedupKey& key : held) dedup_.release(key, claim);
        held.clear();
        metrics_.waited_batches.add();
        claims_[answer.holder].waiting.push_back(&request);
        return false;
    }
  }
  return true;
}

void Admission::settle(std::uint32_t claim, bool durable, WallMicros now) {
  KAVACH_CHECK(claim < claims_.size(), "settling a claim that was never made");
  Claim& settled = claims_[claim];
  const std::size_t count = settled.keys.size();
  for (std::size_t i = 0; i < std::min(count, kPrefetchAhead); ++i) dedup_.prefetch(settled.keys[i]);
  for (std::size_t i = 0; i < count; ++i) {
    // Since they were claimed, thousands of other keys went through the cache.
    if (i + kPrefetchAhead < count) dedup_.prefetch(settled.keys[i + kPrefetchAhead]);
    if (durable) {
      dedup_.remember(settled.keys[i], claim, now);
    } else {
      dedup_.release(settled.keys[i], claim);
    }
  }
  settled.keys.clear();
  std::vector<AdmissionRequest*> waiting;
  waiting.swap(settled.waiting);
  free_claims_.push_back(claim);
  // In order of arrival: after a failure the first one takes over the keys and the others wait for it.
  for (AdmissionRequest* request : waiting) decide(*request);
}

void Admission::on_tick(WallMicros now) {
  dedup_.sweep(now);
  metrics_.dedup_keys.set(static_cast<std::int64_t>(dedup_.size()));
  metrics_.dedup_bytes.set(static_cast<std::int64_t>(dedup_.bytes()));
  metrics_.dedup_evicted.set(static_cast<std::int64_t>(dedup_.evicted()));
}

}  // namespace kavach::quota
