#include "sink/kafka/shipper.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <librdkafka/rdkafka.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <utility>

#include "engine/log.h"
#include "sink/journal/frame.h"
#include "sink/kafka/record.h"

namespace kavach::sink {
namespace {

// How long the thread sleeps at most when nothing is durable or under way; it is woken by frames and reports.
constexpr std::int64_t kIdleWait = kMicrosPerSecond;
// For a report when there is no room for more.
constexpr int kReportWaitMs = 5;
// Between two writes of the position, which sync.
constexpr MonoMicros kSaveEvery = 200 * kMicrosPerMilli;
// A broker that has acknowledged nothing for this long counts as away.
constexpr MonoMicros kAwayAfter = 5 * kMicrosPerSecond;
// After records were refused as too large, until it is tried whether they still are.
constexpr MonoMicros kSmallFor = 600 * kMicrosPerSecond;
// Between two tries of an event that alone is too large, each of which sends its batch.
constexpr MonoMicros kStuckPause = 10 * kMicrosPerSecond;

// A topic refuses too large a record, or too many in a request.
bool is_too_large(rd_kafka_resp_err_t error) {
  return error == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE || error == RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE;
}

std::int64_t full_batch_bytes(const KafkaOptions& options) {
  return std::max(options.batch_bytes_max, options.record_bytes_max);
}

// --- the remembered position -------------------------------------------------------------------------------

std::string position_path(const std::string& directory) {
  return directory + "/kafka.position";
}

// 0 when there is none, or one of another journal.
Result<std::uint64_t> load_position(const std::string& directory, const std::string& journal_id) {
  std::ifstream file(position_path(directory));
  if (!file) return 0;
  std::string id;
  std::uint64_t seq = 0;
  if (!(file >> id >> seq)) return failure(position_path(directory) + ": cannot be read as a position");
  return id == journal_id ? seq : 0;
}

Status write_synced(const std::string& path, const std::string& text) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
  if (file < 0) return failure(error_text(errno));
  const bool written = ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const bool synced = written && ::fsync(file) == 0;
  const int error = errno;
  ::close(file);
  if (!synced) return failure(error_text(error));
  return {};
}

Status sync_directory(const std::string& path) {
  const int directory = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return failure(error_text(errno));
  const bool synced = ::fsync(directory) == 0;
  const int error = errno;
  ::close(directory);
  if (!synced) return failure(error_text(error));
  return {};
}

// The old one stays until the new one is whole. Synced with its name, since segments behind it are recycled.
Status store_position(const std::string& directory, const std::string& journal_id, std::uint64_t seq) {
  const std::string path = position_path(directory);
  const std::string next = path + ".next";
  if (Status written = write_synced(next, journal_id + " " + std::to_string(seq) + "\n"); !written)
    return written;
  if (::rename(next.c_str(), path.c_str()) != 0) return failure(error_text(errno));
  return sync_directory(directory);
}

}  // namespace

Result<std::uint64_t> shipped_position(const std::string& directory, const Uuid& journal_id) {
  return load_position(directory, journal_id.text());
}

// --- librdkafka --------------------------------------------------------------------------------------------

class KafkaShipper::Producer {
 public:
  // Whoever waits for the journal is woken by reports too.
  static Result<std::unique_ptr<Producer>> create(const KafkaOptions& options, const std::string& topic,
                                                  Journal& journal) {
    auto conf = producer_conf(options);
    if (!conf) return conf.error();
    rd_kafka_conf_set_events(conf->get(), RD_KAFKA_EVENT_DR);
    char why[256];
    rd_kafka_t* const made = rd_kafka_new(RD_KAFKA_PRODUCER, conf->get(), why, sizeof why);
    if (made == nullptr) return failure(std::string("Kafka: ") + why);
    static_cast<void>(conf->release());  // rd_kafka_new() has taken it
    rd_kafka_topic_t* const handle = rd_kafka_topic_new(made, topic.c_str(), nullptr);
    if (handle == nullptr) {
      const std::string refusal = rd_kafka_err2str(rd_kafka_last_error());
      rd_kafka_destroy(made);
      return failure("Kafka: topic " + topic + ": " + refusal);
    }
    return std::unique_ptr<Producer>(new Producer(made, handle, journal));
  }
  ~Producer() {
    rd_kafka_queue_cb_event_enable(reports_, nullptr, nullptr);
    rd_kafka_purge(kafka_, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    rd_kafka_topic_destroy(topic_);
    rd_kafka_queue_destroy(reports_);
    rd_kafka_destroy(kafka_);
  }
  Producer(const Producer&) = delete;
  Producer& operator=(const Producer&) = delete;

  rd_kafka_t* operator*() const { return kafka_; }
  rd_kafka_topic_t* topic() const { return topic_; }
  rd_kafka_queue_t* reports() const { return reports_; }

 private:
  Producer(rd_kafka_t* kafka, rd_kafka_topic_t* topic, Journal& journal)
      : kafka_(kafka), topic_(topic), reports_(rd_kafka_queue_get_main(kafka)) {
    rd_kafka_queue_cb_event_enable(
        reports_, [](rd_kafka_t*, void* opaque) { static_cast<Journal*>(opaque)->interrupt(); }, &journal);
  }
  rd_kafka_t* const kafka_;
  rd_kafka_topic_t* const topic_;  // found once, not by its name for every record
  rd_kafka_queue_t* const reports_;
};

void KafkaShipperMetrics::add_to(MetricsRegistry& registry) const {
  registry.add("kavach_kafka_records_total", "Records that Kafka has acknowledged.", records);
  registry.add("kavach_kafka_failures_total", "Failures after which records were sent again.", failures);
  registry.add("kavach_kafka_position", "Number of the last journal frame that Kafka has whole.", position);
  registry.add("kavach_kafka_in_flight_bytes", "Records sent and not acknowledged, before compression.",
               in_flight_bytes);
}

KafkaShipper::KafkaShipper(Journal& journal, const KafkaShipperOptions& options)
    : journal_(journal),
      options_(options),
      node_(journal.id().text()),
      batch_bytes_(full_batch_bytes(options.kafka)),
      follower_(journal) {}

Result<std::unique_ptr<KafkaShipper>> KafkaShipper::create(Journal& journal,
                                                           const KafkaShipperOptions& options) {
  std::unique_ptr<KafkaShipper> made(new KafkaShipper(journal, options));
  const auto position = load_position(options.journal_directory, made->node_);
  if (!position) return position.error();
  if (*position > journal.durable_seq()) {
    return failure("Kafka is ahead of the journal (frame " + std::to_string(*position) +
                   ", journal ends at " + std::to_string(journal.durable_seq()) +
                   "): " + options.journal_directory + " lacks frames that were sent");
  }
  if (*position < journal.released_seq()) {
    const std::string gap = "the journal begins with frame " + std::to_string(journal.released_seq() + 1) +
                            ", Kafka has frames up to " + std::to_string(*position);
    if (*position > 0 && options.on_corruption == CorruptionPolicy::kStop) {
      return failure(options.journal_directory + ": " + gap +
                     ": a segment is missing (journal.on_corruption = \"skip\" goes on)");
    }
    log::warning("kafka: {}; it goes on from there", gap);
  }
  made->acknowledged_seq_ = made->saved_seq_ = *position;
  made->metrics_.position.set(static_cast<std::int64_t>(*position));
  // What is wrong with the settings is said at the start.
  auto producer = Producer::create(options.kafka, options.topic, journal);
  if (!producer) return producer.error();
  made->progress_.publish(*position, *position, system_clock().mono());
  return made;
}

KafkaShipper::~KafkaShipper() {
  stop(0);
}

void KafkaShipper::start(Wake wake) {
  wake_ = std::move(wake);
  journal_.release(acknowledged_seq_);
  follower_.start("kafka shipper", [this] { run(); });
}

void KafkaShipper::stop(std::int64_t patience_us) {
  follower_.stop(patience_us);
}

bool KafkaShipper::healthy() const noexcept {
  const MonoMicros sent_at = oldest_sent_at_;
  return !ended_ && !broken_ && (sent_at == 0 || system_clock().mono() - sent_at < kAwayAfter);
}

std::int64_t KafkaShipper::lag_us() const noexcept {
  const WallMicros received_at = oldest_received_at_;
  return received_at == 0 ? 0 : std::max<std::int64_t>(0, system_clock().wall() - received_at);
}

void KafkaShipper::run() {
  while (!ended_) {
    if (failed_) {
      producer_.reset();
      if (stuck_seq_ != 0) {
        follower_.pause(kStuckPause);
      } else if (!std::exchange(is_smaller_, false)) {
        follower_.back_off();
      }
      failed_ = false;
    }
    const bool wants_full_size =
        batch_bytes_ < full_batch_bytes(options_.kafka) && system_clock().mono() >= full_size_at_;
    if (wants_full_size && pending_.empty()) {
      batch_bytes_ = full_batch_bytes(options_.kafka);
      producer_.reset();
    }
    if (producer_ == nullptr && !begin_again()) break;
    const bool more = journal_.durable_seq() > sent_seq_;
    // Behind an event that is refused nothing is sent: it would be sent again with every try.
    const bool may_send = stuck_seq_ != 0 || wants_full_size ? pending_.empty() : true;
    const bool room = may_send && in_flight_bytes_ < options_.kafka.in_flight_bytes_max;
    if (more && room) {
      if (!send_frame()) break;
    }
    take_reports(more && !room ? kReportWaitMs : 0);
    advance();
    if (acknowledged_seq_ > saved_seq_ && system_clock().mono() >= next_save_) save_position();
    const bool idle = pending_.empty() && journal_.durable_seq() <= sent_seq_;
    if (follower_.time_is_up() || (follower_.stopping() && idle)) break;
    if (!more && !failed_) wait();
  }
  if (acknowledged_seq_ > saved_seq_) save_position();
  producer_.reset();
}

// Until there is a frame, a report, or something else to do.
void KafkaShipper::wait() {
  const bool must_look = acknowledged_seq_ > saved_seq_ || follower_.stopping();
  journal_.wait_beyond(sent_seq_, must_look ? kSaveEvery : kIdleWait);
}

// A new producer, and everything behind the position once more. False: it cannot go on.
bool KafkaShipper::begin_again() {
  pending_.clear();
  in_flight_bytes_ = 0;
  sent_seq_ = acknowledged_seq_;
  auto reader = JournalReader::open(options_.journal_directory, sent_seq_, options_.on_corruption);
  KafkaOptions kafka = options_.kafka;
  kafka.batch_bytes_max = batch_bytes_;
  auto producer = Producer::create(kafka, options_.topic, journal_);
  if (!reader || !producer) {
    const Failure& why = !reader ? reader.error() : producer.error();
    if (why.retryable || reader.has_value()) {
      fail(why.message);
      return true;
    }
    give_up(why.message);
    return false;
  }
  reader_ = std::move(*reader);
  producer_ = std::move(*producer);
  return true;
}

// Sends the next frame whole, or has it fail. False: it cannot go on.
bool KafkaShipper::send_frame() {
  if (producer_ == nullptr) return true;  // begin_again() could not make one
  const std::uint64_t durable = journal_.durable_seq();
  auto entry = reader_->next(durable);
  if (!entry && entry.error().retryable) {
    fail(entry.error().message);
    return true;
  }
  if (!entry) {
    give_up(entry.error().message);
    return false;
  }
  const MonoMicros now = system_clock().mono();
  if (!entry->has_value()) {
    // What was left was damaged, and is skipped.
    pending_.push_back({.seq = durable, .records_left = 0, .received_at = 0, .sent_at = now});
    sent_seq_ = durable;
    return true;
  }
  if (!decode_batch((*entry)->payload, batch_, arena_)) {
    give_up("frame " + std::to_string((*entry)->seq) + " cannot be decoded: written by a newer version?");
    return false;
  }
  Pending& pending = pending_.emplace_back(
      Pending{.seq = (*entry)->seq, .records_left = 1, .received_at = batch_.received_at, .sent_at = now});
  org_ = batch_.org_id.text();
  for (std::size_t first = 0; first < batch_.events.size();) {
    const std::size_t sent = send_record(first, pending);
    if (sent == 0) return true;
    first += sent;
  }
  --pending.records_left;
  sent_seq_ = pending.seq;
  return true;
}

// Returns how many events it took. Waits for room in librdkafka's queue where it has to. 0: failed, or there
// is no time left.
std::size_t KafkaShipper::send_record(std::size_t first, Pending& pending) {
  value_.clear();
  const auto bytes_max = static_cast<std::size_t>(std::min(options_.kafka.record_bytes_max, batch_bytes_));
  const std::size_t events = encode_record(batch_, first, options_.record_events_max, bytes_max, value_);
  char id[36];
  event_id(batch_.id, static_cast<std::uint32_t>(first)).write_text(id);
  for (;;) {
    const auto error = rd_kafka_producev(
        **producer_, RD_KAFKA_V_RKT(producer_->topic()), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_KEY(org_.data(), org_.size()), RD_KAFKA_V_VALUE(value_.data(), value_.size()),
        RD_KAFKA_V_TIMESTAMP(batch_.received_at / kMicrosPerMilli), RD_KAFKA_V_OPAQUE(&pending),
        RD_KAFKA_V_HEADER(kOrgHeader.data(), org_.data(), static_cast<ssize_t>(org_.size())),
        RD_KAFKA_V_HEADER(kEventHeader.data(), id, sizeof id),
        RD_KAFKA_V_HEADER(kNodeHeader.data(), node_.data(), static_cast<ssize_t>(node_.size())),
        RD_KAFKA_V_HEADER(kVersionHeader.data(), kSchemaVersion.data(),
                          static_cast<ssize_t>(kSchemaVersion.size())),
        RD_KAFKA_V_END);
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR) break;
    if (is_too_large(error)) {
      refused_as_too_large(value_, pending.seq);
      return 0;
    }
    if (error != RD_KAFKA_RESP_ERR__QUEUE_FULL) {
      fail(rd_kafka_err2str(error));
      return 0;
    }
    take_reports(kReportWaitMs);
    if (failed_ || follower_.time_is_up()) return 0;
  }
  ++pending.records_left;
  in_flight_bytes_ += static_cast<std::int64_t>(value_.size());
  return events;
}

void KafkaShipper::take_reports(int wait_ms) {
  if (producer_ == nullptr) return;
  while (rd_kafka_event_t* const event = rd_kafka_queue_poll(producer_->reports(), wait_ms)) {
    while (const rd_kafka_message_t* const message = rd_kafka_event_message_next(event)) {
      in_flight_bytes_ -= static_cast<std::int64_t>(message->len);
      if (is_too_large(message->err)) {
        refused_as_too_large({static_cast<const char*>(message->payload), message->len},
                             static_cast<Pending*>(message->_private)->seq);
        continue;
      }
      if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        fail(rd_kafka_err2str(message->err));
        continue;
      }
      --static_cast<Pending*>(message->_private)->records_left;
      metrics_.records.add();
    }
    rd_kafka_event_destroy(event);
    wait_ms = 0;
  }
  metrics_.in_flight_bytes.set(in_flight_bytes_);
}

// Moves the position over what is acknowledged without a gap.
void KafkaShipper::advance() {
  bool moved = false;
  while (!failed_ && !pending_.empty() && pending_.front().records_left == 0) {
    acknowledged_seq_ = pending_.front().seq;
    pending_.pop_front();
    moved = true;
  }
  oldest_received_at_ = pending_.empty() ? 0 : pending_.front().received_at;
  oldest_sent_at_ = pending_.empty() ? 0 : pending_.front().sent_at;
  progress_.publish(acknowledged_seq_, journal_.durable_seq(), system_clock().mono());
  progress_.wake_waiting(wake_);
  if (!moved) return;
  progress_.set_stopped(false);
  follower_.succeeded();
  broken_ = false;
  if (stuck_seq_ != 0 && acknowledged_seq_ >= stuck_seq_) {
    stuck_seq_ = 0;
    set_problem({});
    full_size_at_ = system_clock().mono();
  }
  if (std::exchange(is_complaining_, false)) log::info("kafka: records are acknowledged again");
}

void KafkaShipper::save_position() {
  next_save_ = system_clock().mono() + kSaveEvery;
  if (Status stored = store_position(options_.journal_directory, node_, acknowledged_seq_); !stored) {
    metrics_.failures.add();
    log::error("kafka: cannot remember the position: {}", stored.error().message);
    return;
  }
  saved_seq_ = acknowledged_seq_;
  metrics_.position.set(static_cast<std::int64_t>(saved_seq_));
  journal_.release(saved_seq_);
}

// Something that may pass: run() begins again behind the position. Says so once.
void KafkaShipper::fail(const std::string& why) {
  if (failed_) return;
  failed_ = true;
  broken_ = true;
  progress_.set_stopped(true);
  metrics_.failures.add();
  if (!std::exchange(is_complaining_, true))
    log::error("kafka: records are not taken, the journal keeps them: {}", why);
}

// The refused record may have gone together with others, as many as batch_bytes_ allows.
void KafkaShipper::refused_as_too_large(std::string_view value, std::uint64_t seq) {
  if (failed_) return;  // one step at a time: what went with it is refused too
  const auto bytes = static_cast<std::int64_t>(value.size());
  full_size_at_ = system_clock().mono() + kSmallFor;
  const bool is_one_event = value.find('\n') == std::string_view::npos;
  if (is_one_event && bytes >= batch_bytes_) {
    stuck_seq_ = seq;
    const std::string why = fmt::format(
        "topic {} refuses a single event of {} bytes as too large: raise its max.message.bytes (for events "
        "of "
        "every length to {}) or the brokers' message.max.bytes",
        options_.topic, bytes, kLineBytesMax + static_cast<std::size_t>(kRecordOverheadBytes));
    set_problem(why);
    return fail(why);
  }
  failed_ = is_smaller_ = true;
  metrics_.failures.add();
  log::warning("kafka: topic {} refuses {} bytes as too large (its max.message.bytes), half as much is tried",
               options_.topic, batch_bytes_);
  batch_bytes_ /= 2;
}

std::string KafkaShipper::problem() const {
  const std::lock_guard lock(problem_mutex_);
  return problem_;
}

void KafkaShipper::set_problem(std::string text) {
  const std::lock_guard lock(problem_mutex_);
  problem_ = std::move(text);
}

// Damage, or a bug: going on would lose events in silence. What is not acknowledged stays in the journal.
void KafkaShipper::give_up(const std::string& reason) {
  ended_ = true;
  progress_.set_stopped(true);
  log::error("kafka: stopped behind frame {}, nothing more is sent until a restart: {}", acknowledged_seq_,
             reason);
}

}  // namespace kavach::sink
