#include "sink/shipper.h"

#include <algorithm>
#include <utility>

#include "engine/log.h"
#include "sink/journal/frame.h"

namespace kavach::sink {
namespace {

// How long the thread sleeps at most when nothing is durable.
constexpr std::int64_t kIdleWait = kMicrosPerSecond;
// Between two transactions of a backlog.
constexpr std::int64_t kLetOthersIn = 2 * kMicrosPerMilli;
// Rows that are forgotten at a time, so that no transaction grows long; the rest follows a moment later.
constexpr std::uint64_t kPruneRows = 5'000;
constexpr MonoMicros kPruneEvery = 60 * kMicrosPerSecond;
constexpr MonoMicros kPruneAgain = 100 * kMicrosPerMilli;

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
    : journal_(journal),
      options_(options),
      store_(std::move(store)),
      transaction_events_max_(options.batch_events_max),
      follower_(journal) {}

Result<std::unique_ptr<Shipper>> Shipper::create(Journal& journal, std::unique_ptr<Store> store,
                                                 const ShipperOptions& options) {
  std::unique_ptr<Shipper> made(new Shipper(journal, std::move(store), options));
  const auto position = made->store_->position(journal.id());
  if (!position) return failure("cannot read the shipper's position: " + position.error().message);
  if (*position > journal.durable_seq()) {
    return failure(
        "the store is ahead of the journal (frame " + std::to_string(*position) + ", journal ends at " +
        std::to_string(journal.durable_seq()) + "): " + options.journal_directory +
        " lacks files or frames that were stored from. What it has is stored; restore the rest, or "
        "move its .kvj files away to begin a new journal");
  }
  if (*position < journal.released_seq()) {
    const std::string gap = "the journal begins with frame " + std::to_string(journal.released_seq() + 1) +
                            ", the store has frames up to " + std::to_string(*position);
    // A store that has nothing of this journal is a new one: the frames went to the one before it.
    if (*position > 0 && options.on_corruption == CorruptionPolicy::kStop) {
      return failure(options.journal_directory + ": " + gap +
                     ": a segment is missing (journal.on_corruption = \"skip\" goes on)");
    }
    log::warning("shipper: {}; it goes on from there", gap);
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
  follower_.start("shipper", [this] { run(); });
}

void Shipper::stop(std::int64_t patience_us) {
  follower_.stop(patience_us);
}

std::int64_t Shipper::lag_us() const noexcept {
  const WallMicros received_at = oldest_received_at_;
  return received_at == 0 ? 0 : std::max<std::int64_t>(0, system_clock().wall() - received_at);
}

void Shipper::run() {
  for (;;) {
    prune();
    if (journal_.durable_seq() <= stored_seq_ && !follower_.stopping())
      journal_.wait_beyond(stored_seq_, kIdleWait);
    const bool behind = journal_.durable_seq() > stored_seq_;
    if (follower_.stopping() && (!behind || follower_.time_is_up())) return;
    if (!behind) continue;
    // What comes within the delay goes into the same transaction. With a backlog there is enough already, and
    // only others who want to write are let in.
    if (!follower_.stopping()) follower_.pause(is_catching_up_ ? kLetOthersIn : options_.batch_delay_us);
    if (batch_count_ == 0 && !gather()) return;
    if (gathered_seq_ > stored_seq_ && !store_batches()) return;
  }
}

// Reads batches from the journal up to the bound of a transaction: none when it has to be tried again. False:
// it cannot go on.
bool Shipper::gather() {
  event_count_ = 0;
  gathered_seq_ = stored_seq_;
  const std::uint64_t durable = journal_.durable_seq();
  while (event_count_ < options_.batch_events_max && gathered_seq_ < durable) {
    auto entry = reader_->next(durable);
    if (!entry && entry.error().retryable) {
      if (batch_count_ == 0) back_off("the journal cannot be read", entry.error().message);
      break;
    }
    if (!entry) {
      give_up(entry.error().message);
      return false;
    }
    if (!entry->has_value()) {
      gathered_seq_ = durable;  // what was left was damaged, and is skipped
      break;
    }
    if (batch_count_ == batches_.size()) {
      batches_.emplace_back();
      backings_.emplace_back();
      seqs_.emplace_back();
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
    seqs_[batch_count_] = (*entry)->seq;
    ++batch_count_;
    gathered_seq_ = (*entry)->seq;
  }
  oldest_received_at_ = batch_count_ > 0 ? batches_.front().received_at : 0;
  is_catching_up_ = event_count_ >= options_.batch_events_max;
  return true;
}

// How many of the gathered batches the next transaction has. One that takes longer than the database is
// waited for would never succeed: after a failure the next one is half as large, and grows again with each
// that succeeds.
std::size_t Shipper::transaction_size() const noexcept {
  std::size_t size = 0;
  std::uint64_t events = 0;
  while (first_batch_ + size < batch_count_) {
    events += batches_[first_batch_ + size].events.size();
    if (events > transaction_events_max_ && size > 0) break;
    ++size;
  }
  return size;
}

// One transaction, tried until it succeeds. False: it cannot go on, or there is no time left.
bool Shipper::store_batches() {
  const MonoMicros started = system_clock().mono();
  const std::size_t size = transaction_size();
  const std::size_t end = first_batch_ + size;
  const std::uint64_t seq = end == batch_count_ ? gathered_seq_ : seqs_[end - 1];
  const auto outcome =
      store_->apply(std::span<const Batch>(batches_).subspan(first_batch_, size), journal_.id(), seq);
  if (!outcome) {
    if (!outcome.error().retryable) {
      metrics_.failures.add();
      give_up(outcome.error().message);
      return false;
    }
    std::uint64_t events = 0;
    for (std::size_t i = first_batch_; i < end; ++i) events += batches_[i].events.size();
    transaction_events_max_ = std::max<std::uint64_t>(1, events / 2);
    back_off("the store refuses writes", outcome.error().message);
    return !follower_.time_is_up();
  }
  follower_.succeeded();
  if (!healthy_.exchange(true)) log::info("shipper: stores again");
  transaction_events_max_ =
      std::min(options_.batch_events_max, transaction_events_max_ + transaction_events_max_ / 4 + 1);
  stored_seq_ = seq;
  if (size > 0) stored_until_ = batches_[end - 1].received_at;
  journal_.release(stored_seq_);
  metrics_.events.add(outcome->stored);
  metrics_.duplicates.add(outcome->duplicates);
  metrics_.transactions.add();
  metrics_.position.set(static_cast<std::int64_t>(stored_seq_));
  metrics_.transaction_duration.record(system_clock().mono() - started);
  first_batch_ = end;
  oldest_received_at_ = end < batch_count_ ? batches_[end].received_at : 0;
  if (end == batch_count_) first_batch_ = batch_count_ = 0;
  return true;
}

void Shipper::back_off(std::string_view what, std::string_view why) {
  metrics_.failures.add();
  if (healthy_.exchange(false))
    log::error("shipper: {}, the journal keeps what is not stored: {}", what, why);
  follower_.back_off();
}

void Shipper::prune() {
  const MonoMicros now = system_clock().mono();
  if (now < next_prune_) return;
  // What is not stored yet was received in the past, and is a duplicate of what was remembered then.
  const bool behind = journal_.durable_seq() > stored_seq_;
  const WallMicros until = behind ? stored_until_ : system_clock().wall();
  const bool keys_age = options_.dedup_window_us > 0;
  const auto pruned = store_->prune(keys_age ? until - options_.dedup_window_us : 0, kPruneRows);
  next_prune_ = now + (pruned && *pruned >= kPruneRows ? kPruneAgain : kPruneEvery);
}

// Damage, or a bug: going on would lose events in silence. What is not stored stays in the journal.
void Shipper::give_up(const std::string& reason) {
  healthy_ = false;
  log::error("shipper: stopped behind frame {}, nothing more is stored until a restart: {}", stored_seq_,
             reason);
}

}  // namespace kavach::sink
