// ReceiptQueue: the requests of one shard whose batches are durable in the journal and whose answers wait for
// Kafka to have them too (`kafka.receipt = "broker"`).
//
// Nobody waits longer than `patience_us`, and nobody waits at all while the broker is known to be away: such
// a request is answered with the receipt that it has, the journal's. That is also the answer to what was
// written when the broker went away under `refuse_when_away`: it is durable and will be shipped, so a 429
// would be wrong; the client would send again what deduplication then drops. What is refused is refused
// before it is written.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

#include "engine/clock.h"
#include "engine/metrics.h"
#include "engine/shard.h"
#include "sink/kafka/broker_progress.h"

namespace kavach::http {

// What a 202 says of its batch: written and synced on this node, or acknowledged by Kafka with acks=all.
enum class ReceiptClass : std::uint8_t { kJournal, kBroker };

// Own thread of the shard.
class ReceiptQueue {
 public:
  struct Options {
    bool wait_for_broker = false;
    bool refuse_when_away = false;
    std::int64_t patience_us = 2 * kMicrosPerSecond;
  };
  struct Answer {
    void* request;
    ReceiptClass receipt;
  };

  // `progress` is null where no Kafka is, and outlives the queue. `waiting` shows how many wait.
  ReceiptQueue(ShardId shard, sink::BrokerProgress* progress, Gauge& waiting)
      : shard_(shard), progress_(progress), waiting_gauge_(waiting) {}

  // Holds from the next call of next() on, also for those that wait.
  void set_options(const Options& options) { options_ = options; }
  const Options& options() const { return options_; }

  // A batch may not be written now.
  bool refuses(MonoMicros now) const;
  // The receipt of a batch that is durable up to `seq`; nullopt: `request` waits.
  std::optional<ReceiptClass> ask(std::uint64_t seq, void* request, MonoMicros now);
  // The first that waits, as soon as its answer is known. Called until nullopt when the shipper woke the
  // shard, and with every tick.
  std::optional<Answer> next(MonoMicros now);
  // The first that waits, whatever is known: it has the journal's receipt. nullopt: nobody waits.
  std::optional<Answer> give_up();

 private:
  struct Waiting {
    std::uint64_t seq;
    MonoMicros since;
    void* request;
  };
  bool waits() const { return progress_ != nullptr && options_.wait_for_broker; }
  Answer pop(ReceiptClass receipt);

  const ShardId shard_;
  sink::BrokerProgress* const progress_;
  Gauge& waiting_gauge_;
  Options options_;
  std::deque<Waiting> waiting_;  // by seq, and by since
};

}  // namespace kavach::http
