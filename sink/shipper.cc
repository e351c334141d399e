#include "sink/shipper.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/log.h"
#include "sink/journal/frame.h"

namespace kavach::sink {
namespace {

constexpr std::int64_t kBackoffFirst = 50 * kMicrosPerMilli;
constexpr std::int64_t kBackoffMax = 5 * kMicrosPerSecond;
// How long the thread sleeps at most when nothing is durable.
constexpr std::int64_t kIdleWait = kMicrosPerSecond;
// Rows that are forgotten at a time, so that no transaction grows long; the rest follows a moment later.
constexpr std::uint64_t kPruneRows = 5'000;
constexpr MonoMicros kPruneEvery = 60 * kMicrosPerSecond;
constexpr MonoMicros kPruneAgain = kMicrosPerSecond;

}  // namespace

void ShipperMetrics::add_to(MetricsRegistry& registry) const {
  registry.add("kavach_shipper_events_total", "Events stored.", events);
  registry.add("kavach_shipper_duplicates_total", "Events that the store's unique index refused.",
               duplicates);
  registry.add("kavach_shipper_transactions_total", "Transactions committed.", transactions);
  registry.add("kavach_shipper_failures_total", "Transactions that failed and were tried again.", failures);
  registry.add("kavach_shipper_position", "Number of the last stored journal frame.", position);
  registry.add("kavach_shipper_transaction_duration_seconds", "One transaction.", transaction_duration);
}

Shipper::Shipper(Journal& journal, std::unique_ptr<Store> store, const ShipperOptions& options)
    : journal_(journal), options_(options), store_(std::move(store)) {}

Result<std::unique_ptr<Shipper>> Shipper::create(Journal& journal, std::unique_ptr<Store> store,
                                                 const ShipperOptions& options) {
  std::unique_ptr<Shipper> made(new Shipper(journal, std::move(store), options));
  const auto position = made->store_->position(journal.id());
  if (!position) return failure("cannot read the shipper's position: " + position.error().message);
  if (*position > journal.durable_seq()) {
    return failure("the store is ahead of the journal (frame " + std::to_string(*position) +
                   ", journal ends at " + std::to_string(journal.durable_seq()) +
                   "): journal.directory lacks files that were stored from");
  }
  made->stored_seq_ = made->gathered_seq_ = *position;
  made->metrics_.position.set(static_cast<std::int64_t>(*position));
  auto reader = JournalReader::open(options.journal_directory, *position, options.on_corruption);
  if (!reader) return reader.error();
  made->reader_ = std::move(*reader);
  journal.release(*position);
  return made;
}

Shipper::~Shipper() {
  stop(0);
}

void Shipper::start() {
  thread_ = std::thread([this] {
    ::pthread_setname_np(::pthread_self(), "shipper");
    run();
  });
}

void Shipper::stop(std::int64_t patience_us) {
  deadline_.store(system_clock().mono() + patience_us);
  {
    const std::lock_guard lock(mutex_);
    stopping_.store(true);
  }
  stop_asked_.notify_all();
  journal_.interrupt();
  if (thread_.joinable()) thread_.join();
}

bool Shipper::time_is_up() const noexcept {
  return stopping_ && system_clock().mono() >= deadline_;
}

void Shipper::pause(std::int64_t micros) {
  std::unique_lock lock(mutex_);
  stop_asked_.wait_for(lock, std::chrono::microseconds(micros), [this] { return stopping_.load(); });
}

void Shipper::run() {
  for (;;) {
    const bool behind = journal_.durable_seq() > stored_seq_;
    if (stopping_ && (!behind || time_is_up())) return;
    if (!behind) {
      prune();
      journal_.wait_beyond(stored_seq_, kIdleWait);
      // What comes within the delay goes into the same transaction.
      if (!stopping_ && journal_.durable_seq() > stored_seq_) pause(options_.batch_delay_us);
      continue;
    }
    if (batch_count_ == 0 && !gather()) return;
    if (!store_batches()) return;
  }
}

// Reads batches from the journal up to the bound of a transaction. False: it cannot go on.
bool Shipper::gather() {
  event_count_ = 0;
  const std::uint64_t durable = journal_.durable_seq();
  gathered_seq_ = durable;
  while (event_count_ < options_.batch_events_max) {
    auto entry = reader_->next(durable);
    if (!entry) {
      give_up(entry.error().message);
      return false;
    }
    if (!entry->has_value()) break;
    if (batch_count_ == batches_.size()) {
      batches_.emplace_back();
      backings_.emplace_back();
    }
    // Views stay valid although the vectors grow: a moved vector keeps its memory, and the arena's text is
    // written by decode_batch() below, behind the move.
    Backing& backing = backings_[batch_count_];
    backing.payload.assign((*entry)->payload.begin(), (*entry)->payload.end());
    if (!decode_batch(backing.payload, batches_[batch_count_], backing.arena)) {
      give_up("frame " + std::to_string((*entry)->seq) + " cannot be decoded: written by a newer version?");
      return false;
    }
    event_count_ += batches_[batch_count_].events.size();
    ++batch_count_;
    gathered_seq_ = (*entry)->seq;
    if (event_count_ >= options_.batch_events_max) break;
    if (gathered_seq_ == durable) break;
  }
  return true;
}

// One transaction, tried until it succeeds. False: it cannot go on, or there is no time left.
bool Shipper::store_batches() {
  const MonoMicros started = system_clock().mono();
  const auto outcome =
      store_->apply(std::span<const Batch>(batches_.data(), batch_count_), journal_.id(), gathered_seq_);
  if (!outcome) {
    metrics_.failures.add();
    if (!outcome.error().retryable) {
      give_up(outcome.error().message);
      return false;
    }
    if (healthy_.exchange(false)) {
      log::error("shipper: the store refuses writes, the journal keeps what it cannot take: {}",
                 outcome.error().message);
    }
    backoff_us_ = std::clamp(backoff_us_ * 2, kBackoffFirst, kBackoffMax);
    // Between half and all of it, so that several nodes do not come back in step.
    pause(backoff_us_ / 2 +
          static_cast<std::int64_t>(random_.next() % static_cast<std::uint64_t>(backoff_us_ / 2)));
    return !time_is_up();
  }
  backoff_us_ = 0;
  if (!healthy_.exchange(true)) log::info("shipper: the store takes writes again");
  stored_seq_ = gathered_seq_;
  journal_.release(stored_seq_);
  metrics_.events.add(outcome->stored);
  metrics_.duplicates.add(outcome->duplicates);
  metrics_.transactions.add();
  metrics_.position.set(static_cast<std::int64_t>(stored_seq_));
  metrics_.transaction_duration.record(system_clock().mono() - started);
  batch_count_ = 0;
  return true;
}

void Shipper::prune() {
  const MonoMicros now = system_clock().mono();
  if (now < next_prune_) return;
  const bool keys_age = options_.dedup_window_us > 0;
  const auto pruned =
      store_->prune(keys_age ? system_clock().wall() - options_.dedup_window_us : 0, kPruneRows);
  next_prune_ = now + (pruned && *pruned >= kPruneRows ? kPruneAgain : kPruneEvery);
}

// Damage, or a bug: going on would lose events in silence. What is not stored stays in the journal.
void Shipper::give_up(const std::string& reason) {
  healthy_ = false;
  log::error("shipper: stopped behind frame {}, nothing more is stored until a restart: {}", stored_seq_,
             reason);
}

}  // namespace kavach::sink
