// Admission: the one call that decides a batch, on the home shard of its org.
//
// A batch's idempotency keys are claimed here before it is written to the journal. They become remembered
// when the journal has it (settle(durable)), and are free again when the journal failed. A batch that carries
// a key which another batch under way has claimed waits, holding nothing, for that batch's outcome: so its
// own answer is never given before the event is durable, and no wait can be circular.
//
// Owner thread only: the home shard. A request is lent by the shard that received the batch, from decide()
// until `decided` is called.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "engine/clock.h"
#include "engine/metrics.h"
#include "quota/dedup.h"

namespace kavach::quota {

enum class Verdict : std::uint8_t {
  kAdmitted,   // `admitted` says which events; settle() must follow
  kDuplicate,  // every event is durable already: nothing to write, nothing to settle
  kBusy,       // too many batches under way: a transient refusal
};

struct AdmissionRequest {
  // From the asker.
  WallMicros now = 0;
  std::vector<DedupKey> keys;  // one per event; is_none() where it has none
  void (*decided)(AdmissionRequest& request) noexcept = nullptr;  // called on the home shard, once

  // From the verdict.
  Verdict verdict = Verdict::kBusy;
  std::vector<std::uint8_t> admitted;  // one byte per event
  std::uint32_t admitted_events = 0;
  std::uint32_t claim = 0;  // for settle()
};

struct AdmissionMetrics {
  Counter admitted_events, duplicate_events, waited_batches, busy_batches;
  Gauge dedup_keys, dedup_bytes, dedup_evicted;
  void add_to(MetricsRegistry& registry, std::uint32_t shard) const;
};

class Admission {
 public:
  explicit Admission(const DedupTable::Options& dedup);

  // Calls request.decided() now, or when the batches that hold its keys are settled.
  void decide(AdmissionRequest& request);
  // The outcome of what decide() admitted. Exactly once per claim.
  void settle(std::uint32_t claim, bool durable, WallMicros now);

  // At start, before the shards run.
  DedupTable& dedup() noexcept { return dedup_; }
  // About every 100 ms.
  void on_tick(WallMicros now);

  const AdmissionMetrics& metrics() const noexcept { return metrics_; }

 private:
  struct Claim {
    std::vector<DedupKey> keys;
    std::vector<AdmissionRequest*> waiting;
  };

  bool claim_keys(AdmissionRequest& request, std::uint32_t claim);

  DedupTable dedup_;
  std::deque<Claim> claims_;  // a deque: a Claim's vectors stay where they are while others are added
  std::vector<std::uint32_t> free_claims_;
  AdmissionMetrics metrics_;
};

}  // namespace kavach::quota
