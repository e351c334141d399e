// KafkaShipper: follows the journal on its own thread and carries its events into a topic, in a record each
// or several of a batch in one.
//
// The journal is released up to the last frame before which everything is acknowledged by all in-sync
// replicas; that position is kept in a file beside the journal. A broker that is away is waited for: the
// journal keeps what is not acknowledged, and its backlog bound turns into backpressure at the front. After a
// crash, or an error that ends the producer, what was sent behind the position is sent again, with the same
// event ids.
//
// What a topic refuses as too large is sent again in smaller requests and records, until it takes them or a
// single event is refused. There it stays: an event that was acknowledged is not left out, so somebody has to
// raise the topic's limit, as problem() says. Larger ones are tried again some minutes later.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "engine/clock.h"
#include "engine/event.h"
#include "engine/metrics.h"
#include "engine/result.h"
#include "sink/follower.h"
#include "sink/journal/journal.h"
#include "sink/kafka/broker_progress.h"
#include "sink/kafka/client.h"

namespace kavach::sink {

// The last frame of the journal in `directory` that Kafka has whole, as a shipper has noted it there; also
// while one runs. 0: none of the journal with this id.
Result<std::uint64_t> shipped_position(const std::string& directory, const Uuid& journal_id);

struct KafkaShipperOptions {
  KafkaOptions kafka;
  std::string topic;
  std::size_t record_events_max = 1;
  std::string journal_directory;
  CorruptionPolicy on_corruption = CorruptionPolicy::kStop;
};

struct KafkaShipperMetrics {
  Counter records, failures;
  Gauge position, in_flight_bytes;
  void add_to(MetricsRegistry& registry) const;
};

class KafkaShipper {
 public:
  // Reads the remembered position. No broker has to be there. REQUIRES: the journal outlives the shipper.
  static Result<std::unique_ptr<KafkaShipper>> create(Journal& journal, const KafkaShipperOptions& options);
  ~KafkaShipper();  // stop(0)

  // `wake` is called on the shipper's thread for a shard that waits for what Kafka has acknowledged now
  // (progress().await()); it must not block.
  using Wake = std::function<void(std::uint32_t shard)>;
  void start(Wake wake);
  // Waits for what is durable in the journal by now to be acknowledged (bounded by `patience_us`), then joins
  // the thread. REQUIRES: one caller. Idempotent.
  void stop(std::int64_t patience_us);
  // The last frame that Kafka has whole. REQUIRES: before start().
  std::uint64_t acknowledged_seq() const noexcept { return acknowledged_seq_; }
  // False while records wait for the broker for some seconds, or after damage ended the shipping. Any thread.
  bool healthy() const noexcept;
  // What keeps the shipper from going on and does not pass by itself; empty: nothing. Any thread.
  std::string problem() const;
  // How long ago the oldest batch that was sent and is not acknowledged was accepted; 0: there is none. Any
  // thread.
  std::int64_t lag_us() const noexcept;
  // What Kafka has of the journal, also between two writes of the position. Any thread.
  BrokerProgress& progress() noexcept { return progress_; }
  const KafkaShipperMetrics& metrics() const noexcept { return metrics_; }

 private:
  class Producer;
  // A frame that was sent: in order of their numbers, each until all frames before it are acknowledged too.
  struct Pending {
    std::uint64_t seq;
    std::size_t records_left;  // and one more while it is being sent
    WallMicros received_at;
    MonoMicros sent_at;
  };

  KafkaShipper(Journal& journal, const KafkaShipperOptions& options);
  void run();
  bool begin_again();
  bool send_frame();
  std::size_t send_record(std::size_t first, Pending& pending);
  void take_reports(int wait_ms);
  void wait();
  void advance();
  void save_position();
  void fail(const std::string& why);
  void refused_as_too_large(std::string_view value, std::uint64_t seq);
  void set_problem(std::string text);
  void give_up(const std::string& reason);

  // Constant after create().
  Journal& journal_;
  const KafkaShipperOptions options_;
  const std::string node_;  // the journal's id
  Wake wake_;               // from start()

  // The shipper's thread.
  std::unique_ptr<Producer> producer_;  // null: begin_again() makes one
  std::unique_ptr<JournalReader> reader_;
  std::deque<Pending> pending_;  // librdkafka holds pointers to them
  std::uint64_t sent_seq_ = 0;
  std::uint64_t acknowledged_seq_ = 0;
  std::uint64_t saved_seq_ = 0;
  std::int64_t in_flight_bytes_ = 0;
  MonoMicros next_save_ = 0;
  bool failed_ = false;  // the producer has lost a record
  bool is_complaining_ = false;
  // What the topic is believed to take; less than at the start after a refusal, until full_size_at_.
  std::int64_t batch_bytes_;
  bool is_smaller_ = false;      // the producer ended for that: no pause is needed
  std::uint64_t stuck_seq_ = 0;  // the frame with a single event that is refused; 0: none
  MonoMicros full_size_at_ = 0;
  Batch batch_;
  std::string arena_, value_, org_;
  KafkaShipperMetrics metrics_;

  // Any thread.
  BrokerProgress progress_;
  std::atomic<bool> ended_{false};
  std::atomic<bool> broken_{false};
  std::atomic<WallMicros> oldest_received_at_{0};
  std::atomic<MonoMicros> oldest_sent_at_{0};
  mutable std::mutex problem_mutex_;
  std::string problem_;  // guarded by problem_mutex_

  Follower follower_;  // last: its thread uses all of the above
};

}  // namespace kavach::sink
