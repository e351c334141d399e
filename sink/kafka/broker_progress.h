// BrokerProgress: how far Kafka has the journal, told by the shipper's thread to the shards.
//
// A shard that has batches waiting names the first frame that it waits for; the shipper calls it once when
// that one is acknowledged, however many were acknowledged with it, and not again until it names another. So
// a shard that waits for nothing costs nothing, and a busy one a message for each round trip to the broker.
//
// Away: the broker does not acknowledge within a patience. What is measured is a turn: from a moment at which
// the journal had frames that Kafka did not have, until Kafka has all of these. A broker is away while a turn
// takes longer than the patience, and stays away until a turn does not; so a backlog that is carried away
// after an outage counts as away too, since nobody would be answered in time behind it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "engine/bounds.h"
#include "engine/clock.h"

namespace kavach::sink {

class BrokerProgress {
 public:
  // --- the shipper's thread ---
  // Everything up to `acknowledged` is in Kafka, the journal ends at `durable`.
  void publish(std::uint64_t acknowledged, std::uint64_t durable, MonoMicros now) noexcept;
  // Calls `wake(shard)` for each shard that waits for what was published.
  template <typename Wake>
  void wake_waiting(const Wake& wake) {
    const std::uint64_t acknowledged = acknowledged_.load(std::memory_order_relaxed);
    for (std::uint32_t shard = 0; shard < bounds::kShardsMax; ++shard) {
      const std::uint64_t seq = lanes_[shard].awaited.load(std::memory_order_seq_cst);
      if (seq == 0 || seq > acknowledged) continue;
      lanes_[shard].awaited.store(0, std::memory_order_relaxed);
      wake(shard);
    }
  }
  // Nothing is sent: after an error, until something is acknowledged again.
  void set_stopped(bool stopped) noexcept { stopped_.store(stopped, std::memory_order_relaxed); }

  // --- any thread ---
  std::uint64_t acknowledged() const noexcept { return acknowledged_.load(std::memory_order_seq_cst); }
  bool away(MonoMicros now, std::int64_t patience_us) const noexcept;

  // --- the shard ---
  // Asks to be woken when `seq` is acknowledged, instead of what it asked before. False: it is already, and
  // nothing was asked. REQUIRES: seq > 0.
  bool await(std::uint32_t shard, std::uint64_t seq) noexcept;

 private:
  struct alignas(64) Lane {
    std::atomic<std::uint64_t> awaited{0};  // 0: nothing
  };

  std::uint64_t turn_seq_ = 0;  // shipper's thread
  std::atomic<std::uint64_t> acknowledged_{0};
  std::atomic<MonoMicros> turn_began_{0};      // 0: Kafka has everything
  std::atomic<std::int64_t> last_turn_us_{0};  // 0: likewise
  std::atomic<bool> stopped_{false};
  std::array<Lane, bounds::kShardsMax> lanes_;  // 4 KiB: not worth an allocation by the number of shards
};

}  // namespace kavach::sink
