#include "sink/writer/writer.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <stdexcept>
#include <utility>

#include "engine/log.h"

namespace kavach::sink {
namespace {

constexpr std::int64_t kBackoffFirst = 50 * kMicrosPerMilli;
constexpr std::int64_t kBackoffMax = 5 * kMicrosPerSecond;
// How long one poll waits when nothing is gathered: stop() is seen after that.
constexpr std::int64_t kIdleWait = 100 * kMicrosPerMilli;
// For dead letters to be acknowledged.
constexpr std::int64_t kBuryPatience = 10 * kMicrosPerSecond;

}  // namespace

void WriterMetrics::add_to(MetricsRegistry& registry) const {
  registry.add("kavach_writer_events_total", "Events that a transaction stored.", events);
  registry.add("kavach_writer_duplicates_total", "Events that were stored already.", duplicates);
  registry.add("kavach_writer_dead_letters_total", "Records that were put into the dead-letter topic.",
               dead_letters);
  registry.add("kavach_writer_transactions_total", "Transactions that succeeded.", transactions);
  registry.add("kavach_writer_failures_total", "Attempts that failed and were tried again.", failures);
  registry.add("kavach_writer_fenced_total", "Transactions that came too late: another had the partition.",
               fenced);
  registry.add("kavach_writer_partitions", "Partitions that this writer has.", partitions);
  registry.add("kavach_writer_lag_records", "Records in these partitions that are not stored yet.",
               lag_records);
  registry.add("kavach_writer_lag_seconds", "Age of the last stored record while there are more.",
               lag_seconds);
  registry.add("kavach_writer_transaction_duration_seconds", "One transaction.", transaction_duration);
}

void throw_exception_from_error(const WriteFailure& failure, const boost::source_location&) {
  throw std::runtime_error(failure.message);
}

Writer::Writer(std::unique_ptr<WriterStore> store, DecodeRecord decode, const WriterOptions& options)
    : options_(options),
      decode_(std::move(decode)),
      store_(std::move(store)),
      transaction_events_max_(options.batch_events_max) {}

Result<std::unique_ptr<Writer>> Writer::create(std::unique_ptr<WriterStore> store, DecodeRecord decode,
                                               rd_kafka_conf_s* consumer, rd_kafka_conf_s* producer,
                                               const WriterOptions& options) {
  std::unique_ptr<Writer> made(new Writer(std::move(store), std::move(decode), options));
  auto sender = RecordSender::create(producer);
  if (!sender) return sender.error();
  made->sender_ = std::move(*sender);
  auto member = Consumer::create(consumer, options.topic, *made);
  if (!member) return member.error();
  made->consumer_ = std::move(*member);
  return made;
}

Writer::~Writer() {
  stop(0);
}

void Writer::start() {
  thread_ = std::thread([this] {
    ::pthread_setname_np(::pthread_self(), "writer");
    run();
  });
}

void Writer::stop(std::int64_t patience_us) {
  deadline_.store(system_clock().mono() + patience_us);
  stopping_.store(true);
  if (thread_.joinable()) thread_.join();
}

bool Writer::time_is_up() const noexcept {
  return stopping_ && system_clock().mono() >= deadline_;
}

void Writer::run() {
  while (!stopping_) {
    gather();
    if (!pending_.empty() && !store_pending()) break;
    show_lag();
  }
  consumer_->leave();
}

// --- partitions --------------------------------------------------------------------------------------------

// In the callback of the group's: nobody else has these partitions now, and those who had them are fenced by
// the generations that are raised here. A transaction of theirs that is under way ends first.
bool Writer::take(std::span<PartitionStart> partitions) {
  std::vector<std::int32_t> wanted;
  for (const PartitionStart& start : partitions) wanted.push_back(start.partition);
  is_claiming_ = true;
  while (!stopping_) {
    const auto claimed = store_->claim(options_.topic, wanted);
    if (claimed) {
      recovered();
      for (std::size_t i = 0; i < partitions.size(); ++i) {
        const StoredPosition& position = (*claimed)[i];
        positions_[position.partition] = position;
        partitions[i].offset = position.next_offset;
      }
      metrics_.partitions.set(static_cast<std::int64_t>(positions_.size()));
      is_claiming_ = false;
      return true;
    }
    back_off("the database does not hand out positions", claimed.error().message);
  }
  is_claiming_ = false;
  return false;
}

void Writer::lose(std::span<const std::int32_t> partitions) {
  for (const std::int32_t partition : partitions) positions_.erase(partition);
  metrics_.partitions.set(static_cast<std::int64_t>(positions_.size()));
  // Whoever has them next reads these records again.
  drop_pending();
}

// --- gathering ---------------------------------------------------------------------------------------------

// At least one record, and what comes within the delay, up to the bound of a transaction. None: nothing came.
void Writer::gather() {
  MonoMicros until = 0;
  while (event_count_ < options_.batch_events_max && !stopping_) {
    const std::int64_t left = until - system_clock().mono();
    if (!pending_.empty() && left <= 0) return;
    auto record = consumer_->poll(pending_.empty() ? kIdleWait : left);
    if (!record) {
      if (pending_.empty()) return;
      continue;
    }
    if (pending_.empty()) until = system_clock().mono() + options_.batch_delay_us;
    add(std::move(*record));
  }
}

void Writer::add(ConsumedRecord record) {
  if (!positions_.contains(record.partition())) return;  // was fetched before the partition was lost
  Pending& added = pending_.emplace_back(Pending{.record = std::move(record), .refusal = {}});
  Batch& batch = batches_.emplace_back();
  if (const Status decoded = decode_(added.record, batch, nodes_.emplace_back(), arenas_.emplace_back());
      !decoded) {
    refuse(pending_.size() - 1, decoded.error().message);
  }
  event_count_ += std::max<std::size_t>(1, batch.events.size());  // a refused one is work too
}

void Writer::refuse(std::size_t index, std::string reason) {
  pending_[index].refusal = std::move(reason);
  batches_[index].events.clear();
}

void Writer::drop_pending() {
  pending_.clear();
  stored_count_ = 0;
  batches_.clear();
  nodes_.clear();
  arenas_.clear();
  event_count_ = 0;
}

// --- storing -----------------------------------------------------------------------------------------------

bool Writer::store_pending() {
  while (stored_count_ < pending_.size()) {
    switch (store_range(stored_count_, end_of_transaction())) {
      case Attempt::kDone:
        break;
      case Attempt::kRetry:
        if (time_is_up()) return false;
        break;
      case Attempt::kFenced:
        // Whatever the group believes, another one has a partition: all are asked for anew.
        metrics_.fenced.add();
        log::warning("writer: another one has taken over; what was gathered is left to it");
        drop_pending();
        consumer_->rejoin();
        break;
      case Attempt::kBroken:
        healthy_ = false;
        return false;
    }
  }
  drop_pending();
  consumer_->release();
  return true;
}

std::uint64_t Writer::events_of(std::size_t from, std::size_t to) const noexcept {
  std::uint64_t events = 0;
  for (std::size_t i = from; i < to; ++i) events += std::max<std::size_t>(1, batches_[i].events.size());
  return events;
}

// A transaction that takes longer than the database is waited for would never succeed: after a failure the
// next one is half as large, and grows again with each that succeeds.
std::size_t Writer::end_of_transaction() const noexcept {
  std::size_t end = stored_count_;
  std::uint64_t events = 0;
  while (end < pending_.size()) {
    events += std::max<std::size_t>(1, batches_[end].events.size());
    if (events > transaction_events_max_ && end > stored_count_) break;
    ++end;
  }
  return end;
}

// Stores the records from..to, in order. A range that the database refuses is halved until the record that it
// means stands alone.
Writer::Attempt Writer::store_range(std::size_t from, std::size_t to) {
  if (const Status buried = bury_refused(from, to); !buried) {
    back_off("the dead-letter topic takes no records", buried.error().message);
    return Attempt::kRetry;
  }
  const MonoMicros started = system_clock().mono();
  const auto outcome = apply(from, to);
  if (outcome) {
    recovered();
    stored_count_ = to;
    transaction_events_max_ =
        std::min(options_.batch_events_max, transaction_events_max_ + transaction_events_max_ / 4 + 1);
    last_stored_ms_ = pending_[to - 1].record.timestamp_ms();
    metrics_.events.add(outcome->stored);
    metrics_.duplicates.add(outcome->duplicates);
    metrics_.transactions.add();
    metrics_.transaction_duration.record(system_clock().mono() - started);
    return Attempt::kDone;
  }
  switch (outcome.error().error) {
    case WriteError::kAway:
      transaction_events_max_ = std::max<std::uint64_t>(1, events_of(from, to) / 2);
      back_off("the database takes no events", outcome.error().message);
      return Attempt::kRetry;
    case WriteError::kFenced:
      return Attempt::kFenced;
    case WriteError::kRefused:
      break;
    case WriteError::kBroken:
      log::error("writer: stopped, nothing more is stored until a restart: {}", outcome.error().message);
      return Attempt::kBroken;
  }
  if (to - from == 1) {
    if (!pending_[from].refusal.empty()) {
      // Without its events there is nothing left to refuse.
      log::error("writer: stopped, the database refuses a position: {}", outcome.error().message);
      return Attempt::kBroken;
    }
    refuse(from, outcome.error().message);
    return store_range(from, to);
  }
  const std::size_t middle = from + (to - from) / 2;
  const Attempt first = store_range(from, middle);
  return first == Attempt::kDone ? store_range(middle, to) : first;
}

Result<ApplyOutcome, WriteFailure> Writer::apply(std::size_t from, std::size_t to) {
  std::map<std::int32_t, StoredPosition> moved;
  for (std::size_t i = from; i < to; ++i) {
    const ConsumedRecord& record = pending_[i].record;
    const auto partition = record.partition();
    moved.try_emplace(partition, positions_.at(partition)).first->second.next_offset = record.offset() + 1;
  }
  std::vector<StoredPosition> positions;
  for (const auto& [partition, position] : moved) positions.push_back(position);
  auto outcome = store_->apply(options_.topic, std::span<const Batch>(batches_).subspan(from, to - from),
                               std::span<const Uuid>(nodes_).subspan(from, to - from), positions);
  if (outcome) {
    for (const StoredPosition& position : positions) positions_[position.partition] = position;
  }
  return outcome;
}

// Before the position passes them.
Status Writer::bury_refused(std::size_t from, std::size_t to) {
  std::vector<OutgoingRecord> letters;
  std::vector<Pending*> buried;
  for (std::size_t i = from; i < to; ++i) {
    Pending& pending = pending_[i];
    if (pending.refusal.empty() || pending.is_buried) continue;
    letters.push_back(bury(pending.record, pending.refusal, options_.dead_letter_topic));
    buried.push_back(&pending);
  }
  if (letters.empty()) return {};
  if (Status sent = sender_->send(letters, kBuryPatience); !sent) return sent;
  for (Pending* const pending : buried) {
    pending->is_buried = true;
    log::warning("writer: {} partition {} offset {} went to {}: {}", options_.topic,
                 pending->record.partition(), pending->record.offset(), options_.dead_letter_topic,
                 pending->refusal);
  }
  metrics_.dead_letters.add(letters.size());
  return {};
}

// --- patience ----------------------------------------------------------------------------------------------

void Writer::back_off(std::string_view what, std::string_view why) {
  metrics_.failures.add();
  if (healthy_.exchange(false)) log::error("writer: {}, Kafka keeps what is not stored: {}", what, why);
  backoff_us_ = std::clamp(backoff_us_ * 2, kBackoffFirst, kBackoffMax);
  // Between half and all of it, so that several writers do not come back in step.
  const std::int64_t pause =
      backoff_us_ / 2 +
      static_cast<std::int64_t>(random_.next() % static_cast<std::uint64_t>(backoff_us_ / 2));
  const MonoMicros until = std::min(system_clock().mono() + pause,
                                    stopping_ ? deadline_.load() : std::numeric_limits<MonoMicros>::max());
  if (!is_claiming_) consumer_->hold();
  while (system_clock().mono() < until) {
    const std::int64_t slice = std::min(until - system_clock().mono(), kIdleWait);
    if (is_claiming_) {
      std::this_thread::sleep_for(std::chrono::microseconds(std::max<std::int64_t>(slice, 0)));
    } else if (auto record = consumer_->poll(slice)) {
      add(std::move(*record));  // was on its way
    }
    if (stopping_ && time_is_up()) return;
  }
}

void Writer::recovered() {
  backoff_us_ = 0;
  if (!healthy_.exchange(true)) log::info("writer: stores again");
}

void Writer::show_lag() {
  std::vector<PartitionStart> starts;
  for (const auto& [partition, position] : positions_) {
    starts.push_back({.partition = partition, .offset = position.next_offset});
  }
  const std::int64_t behind = consumer_->records_behind(starts);
  metrics_.lag_records.set(behind);
  const std::int64_t age_ms = system_clock().wall() / kMicrosPerMilli - last_stored_ms_;
  metrics_.lag_seconds.set(behind == 0 || last_stored_ms_ == 0 ? 0
                                                               : std::max<std::int64_t>(0, age_ms / 1000));
}

}  // namespace kavach::sink
