// Writer: carries events from Kafka into the SQL store, each exactly once, on its own thread.
//
// Records are gathered up to `batch_events_max` events or `batch_delay`, and stored in one transaction
// together with the positions that follow from them. A partition's position has a generation, which every
// member that is given the partition raises: a transaction of a member that lost it meanwhile finds another
// generation and comes to nothing. So neither a crash, nor a rebalance, nor a member that was frozen and goes
// on, loses or doubles an event.
//
// A record that cannot be stored (no event, or refused by the database for what it contains) is buried in the
// dead-letter topic before the position passes it; the others go on. A database or brokers that are away are
// waited for, while the group hears that this member lives.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "engine/clock.h"
#include "engine/event.h"
#include "engine/ids.h"
#include "engine/metrics.h"
#include "engine/result.h"
#include "sink/store/store.h"
#include "sink/writer/consumer.h"
#include "sink/writer/dead_letters.h"

namespace kavach::sink {

struct WriterOptions {
  std::uint64_t batch_events_max = 10'000;
  std::int64_t batch_delay_us = 100'000;
  std::string topic;
  std::string dead_letter_topic;
};

// How far one partition is stored, and by whom.
struct StoredPosition {
  std::int32_t partition = 0;
  std::optional<std::int64_t> next_offset;  // absent: nothing was stored of it yet
  std::int64_t generation = 0;
};

enum class WriteError : std::uint8_t {
  kAway,     // the same call may succeed later
  kRefused,  // the database does not take what the records contain
  kFenced,   // a position has a newer generation
  kBroken,   // no retry heals it
};
struct WriteFailure {
  WriteError error = WriteError::kBroken;
  std::string message;
};
[[noreturn]] void throw_exception_from_error(const WriteFailure& failure,
                                             const boost::source_location& where);

// What the writer needs of a database. One thread; calls block.
class WriterStore {
 public:
  virtual ~WriterStore() = default;
  // Raises the generation of each partition of `topic`, once no transaction has it any more, and tells where
  // to go on. In the order of `partitions`.
  virtual Result<std::vector<StoredPosition>, WriteFailure> claim(
      std::string_view topic, std::span<const std::int32_t> partitions) = 0;
  // Stores the batches (nodes[i] took batches[i]; one may be empty), what follows from them, and the
  // positions. All of it or nothing, but for events alone: those are known when they come again.
  virtual Result<ApplyOutcome, WriteFailure> apply(std::string_view topic, std::span<const Batch> batches,
                                                   std::span<const Uuid> nodes,
                                                   std::span<const StoredPosition> positions) = 0;
};

// What a record's bytes mean: its events as one batch, and the node that took them. The batch's views point
// into the record and into `arena`. The failure is the reason for a person.
using DecodeRecord =
    std::function<Status(const ConsumedRecord& record, Batch& batch, Uuid& node, std::string& arena)>;

struct WriterMetrics {
  Counter events, duplicates, dead_letters, transactions, failures, fenced;
  Gauge partitions;   // that this member has
  Gauge lag_records;  // in its partitions, not stored yet
  Gauge lag_seconds;  // age of the last stored record while there are more; else 0
  DurationHistogram transaction_duration;
  void add_to(MetricsRegistry& registry) const;
};

class Writer final : private Consumer::Owner {
 public:
  // `store` becomes the writer's own. The two clients' configs are taken; the first is that of a consumer
  // with its group, the second that of a producer.
  static Result<std::unique_ptr<Writer>> create(std::unique_ptr<WriterStore> store, DecodeRecord decode,
                                                rd_kafka_conf_s* consumer, rd_kafka_conf_s* producer,
                                                const WriterOptions& options);
  ~Writer() override;  // stop(0)

  void start();
  // Stores what is gathered (bounded by `patience_us`), leaves the group, joins the thread.
  // REQUIRES: one caller. Idempotent.
  void stop(std::int64_t patience_us);
  // False while the database or the dead-letter topic refuses writes, or after something that no retry heals.
  // Any thread.
  bool healthy() const noexcept { return healthy_.load(std::memory_order_relaxed); }
  const WriterMetrics& metrics() const noexcept { return metrics_; }

 private:
  // A record that waits to be stored.
  struct Pending {
    ConsumedRecord record;
    std::string refusal;     // why it cannot be stored; empty: its events are right
    bool is_buried = false;  // in the dead-letter topic
  };
  enum class Attempt : std::uint8_t { kDone, kRetry, kFenced, kBroken };

  Writer(std::unique_ptr<WriterStore> store, DecodeRecord decode, const WriterOptions& options);
  // Consumer::Owner
  bool take(std::span<PartitionStart> partitions) override;
  void lose(std::span<const std::int32_t> partitions) override;

  void run();
  void gather();
  void add(ConsumedRecord record);
  void refuse(std::size_t index, std::string reason);
  // Until all is stored, or lost, or there is no time left. False: it cannot go on.
  bool store_pending();
  std::uint64_t events_of(std::size_t from, std::size_t to) const noexcept;
  std::size_t end_of_transaction() const noexcept;
  Attempt store_range(std::size_t from, std::size_t to);
  Result<ApplyOutcome, WriteFailure> apply(std::size_t from, std::size_t to);
  Status bury_refused(std::size_t from, std::size_t to);
  void drop_pending();
  // Something that may pass: says so once, and waits longer each time. The group is polled meanwhile.
  void back_off(std::string_view what, std::string_view why);
  void recovered();
  void show_lag();
  bool time_is_up() const noexcept;

  // Constant after create().
  const WriterOptions options_;
  const DecodeRecord decode_;
  std::thread thread_;

  // The writer's thread.
  std::unique_ptr<WriterStore> store_;
  std::unique_ptr<RecordSender> sender_;
  std::unique_ptr<Consumer> consumer_;
  std::map<std::int32_t, StoredPosition> positions_;  // of this member's partitions, as they are stored
  std::vector<Pending> pending_;
  std::size_t stored_count_ = 0;  // of pending_, from the front
  // Of each pending record: its events (none of a refused one), who took them, what the views point into.
  std::vector<Batch> batches_;
  std::vector<Uuid> nodes_;
  std::deque<std::string> arenas_;
  std::uint64_t event_count_ = 0;
  std::uint64_t transaction_events_max_;  // of the next one
  std::int64_t last_stored_ms_ = 0;
  bool is_claiming_ = false;  // within the group's callback, where it cannot be polled
  std::int64_t backoff_us_ = 0;
  Random random_;
  WriterMetrics metrics_;

  // Any thread.
  std::atomic<bool> healthy_{true};
  std::atomic<bool> stopping_{false};
  std::atomic<MonoMicros> deadline_{0};
};

}  // namespace kavach::sink
