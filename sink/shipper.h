// Shipper: follows the journal on its own thread and carries its batches into the SQL store.
//
// Gathers up to `batch_events_max` events or `batch_delay`, stores them with its position in one transaction,
// then releases the journal up to there. A store that fails is retried with backoff for ever: the journal
// keeps what is not stored yet, and its backlog bound turns into backpressure at the front.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/clock.h"
#include "engine/event.h"
#include "engine/ids.h"
#include "engine/metrics.h"
#include "engine/result.h"
#include "sink/follower.h"
#include "sink/journal/journal.h"
#include "sink/store/store.h"

namespace kavach::sink {

struct ShipperOptions {
  std::uint64_t batch_events_max = 10'000;
  std::int64_t batch_delay_us = 100'000;
  std::int64_t dedup_window_us = 0;  // keys older than this are pruned from the store; 0: never
  std::string journal_directory;
  CorruptionPolicy on_corruption = CorruptionPolicy::kStop;
};

struct ShipperMetrics {
  Counter events, duplicates, transactions, failures;
  Gauge position;  // last stored seq
  DurationHistogram transaction_duration;
  void add_to(MetricsRegistry& registry) const;
};

class Shipper {
 public:
  // The store's remembered position is read here. REQUIRES: the journal outlives the shipper.
  static Result<std::unique_ptr<Shipper>> create(Journal& journal, std::unique_ptr<Store> store,
                                                 const ShipperOptions& options);
  ~Shipper();  // stop(0)

  void start();
  // Stores what is durable in the journal by now (bounded by `patience_us`), then joins the thread.
  // REQUIRES: one caller. Idempotent.
  void stop(std::int64_t patience_us);
  // False while the store refuses writes, or after damage ended the shipping. Any thread.
  bool healthy() const noexcept { return healthy_.load(std::memory_order_relaxed); }
  // How long ago the oldest batch that is being stored was accepted; 0: there is none. Any thread.
  std::int64_t lag_us() const noexcept;
  const ShipperMetrics& metrics() const noexcept { return metrics_; }

 private:
  Shipper(Journal& journal, std::unique_ptr<Store> store, const ShipperOptions& options);
  void run();
  bool gather();
  std::size_t transaction_size() const noexcept;
  bool store_batches();
  // Something that may pass: says so once, and waits longer each time.
  void back_off(std::string_view what, std::string_view why);
  void prune();
  void give_up(const std::string& reason);

  // Constant after create().
  Journal& journal_;
  const ShipperOptions options_;

  // The shipper's thread.
  std::unique_ptr<Store> store_;
  std::unique_ptr<JournalReader> reader_;
  std::uint64_t stored_seq_ = 0;
  WallMicros stored_until_ = 0;  // when the last stored batch was received; 0: none since the start
  std::uint64_t gathered_seq_ = 0;
  // What a batch's views point into.
  struct Backing {
    std::vector<std::uint8_t> payload;
    std::string arena;
  };
  // The first batch_count_ are gathered, those before first_batch_ are stored; the others keep their memory.
  std::vector<Batch> batches_;
  std::vector<Backing> backings_;
  std::vector<std::uint64_t> seqs_;  // of their frames
  std::size_t first_batch_ = 0;
  std::size_t batch_count_ = 0;
  std::uint64_t transaction_events_max_;  // of the next one
  std::uint64_t event_count_ = 0;
  bool is_catching_up_ = false;  // the last transaction was full
  MonoMicros next_prune_ = 0;
  ShipperMetrics metrics_;

  // Any thread.
  std::atomic<bool> healthy_{true};
  std::atomic<WallMicros> oldest_received_at_{0};

  Follower follower_;  // last: its thread uses all of the above
};

}  // namespace kavach::sink
