#include "sink/kafka/broker_progress.h"

namespace kavach::sink {

void BrokerProgress::publish(std::uint64_t acknowledged, std::uint64_t durable, MonoMicros now) noexcept {
  // Pairs with await(): either the shard sees this, or wake_waiting() sees what it asked.
  if (acknowledged != acknowledged_.load(std::memory_order_relaxed))
    acknowledged_.store(acknowledged, std::memory_order_seq_cst);

  const MonoMicros began = turn_began_.load(std::memory_order_relaxed);
  if (began != 0 && acknowledged < turn_seq_) return;
  const bool has_everything = durable <= acknowledged;
  if (has_everything) {
    last_turn_us_.store(0, std::memory_order_relaxed);
  } else if (began != 0) {
    last_turn_us_.store(now - began, std::memory_order_relaxed);
  }
  turn_seq_ = durable;
  turn_began_.store(has_everything ? 0 : now, std::memory_order_relaxed);
}

bool BrokerProgress::away(MonoMicros now, std::int64_t patience_us) const noexcept {
  if (stopped_.load(std::memory_order_relaxed)) return true;
  if (last_turn_us_.load(std::memory_order_relaxed) > patience_us) return true;
  const MonoMicros began = turn_began_.load(std::memory_order_relaxed);
  return began != 0 && now - began > patience_us;
}

bool BrokerProgress::await(std::uint32_t shard, std::uint64_t seq) noexcept {
  lanes_[shard].awaited.store(seq, std::memory_order_seq_cst);
  if (acknowledged() < seq) return true;
  // The shipper may have seen it as well and wake the shard once more than needed: it then finds nothing.
  lanes_[shard].awaited.store(0, std::memory_order_relaxed);
  return false;
}

}  // namespace kavach::sink
