// Shipper: follows the journal on its own thread and carries its batches into the SQL store.
//
// Gathers up to `batch_events_max` events or `batch_delay`, stores them with its position in one transaction,
// then releases the journal up to there. A store that fails is retried with backoff for ever: the journal keeps
// what is not stored yet, and its backlog bound turns into backpressure at the front.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "engine/metrics.h"
#include "engine/result.h"
#include "sink/journal/journal.h"
#include "sink/store/store.h"

namespace kavach::sink {

struct ShipperOptions {
  std::uint64_t batch_events_max = 10'000;
  std::int64_t batch_delay_us = 100'000;
  std::int64_t dedup_window_us = 0;  // keys older than this are pruned from the store; 0: never
};

struct ShipperMetrics {
  Counter events, duplicates, transactions, failures;
  Gauge position;  // last stored seq
  DurationHistogram transaction_duration;
  void add_to(MetricsRegistry& registry) const;
};

class Shipper {
 public:
  // The store's remembered position is read here. REQUIRES: both outlive the shipper.
  static Result<std::unique_ptr<Shipper>> create(Journal& journal, const std::string& journal_directory,
                                                 std::unique_ptr<Store> store, const ShipperOptions& options);
  virtual ~Shipper();  // stop()

  virtual void start() = 0;
  // Stores what is durable in the journal by now (bounded by `patience_us`), then joins the thread.
  virtual void stop(std::int64_t patience_us) = 0;
  // False while the store refuses writes. Any thread.
  virtual bool healthy() const noexcept = 0;
  virtual const ShipperMetrics& metrics() const noexcept = 0;
};

}  // namespace kavach::sink
