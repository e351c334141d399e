// Consumer: one member of a Kafka consumer group, whose positions are kept by somebody else.
//
// The group only shares out the partitions; where each of them begins is asked of the Owner, which keeps the
// positions beside what it made of the records. Nothing is committed to Kafka. Records are taken with poll(),
// one at a time, out of what librdkafka's own threads have fetched.
//
// One thread: that of the caller, in which the Owner is called too, from within poll() and leave().
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/clock.h"
#include "engine/result.h"

struct rd_kafka_s;
struct rd_kafka_conf_s;
struct rd_kafka_message_s;

namespace kavach::sink {

// What has to be read next of a partition; absent: it was never read, begin with what it has.
struct PartitionStart {
  std::int32_t partition = 0;
  std::optional<std::int64_t> offset;
};

// A record as it lies in the topic. Views are valid as long as it lives.
class ConsumedRecord {
 public:
  explicit ConsumedRecord(rd_kafka_message_s* message) : message_(message) {}

  std::int32_t partition() const noexcept;
  std::int64_t offset() const noexcept;
  std::int64_t timestamp_ms() const noexcept;  // 0: it has none
  std::string_view topic() const noexcept;
  std::string_view key() const noexcept;    // empty: none
  std::string_view value() const noexcept;  // empty: none
  std::vector<std::pair<std::string_view, std::string_view>> headers() const;

 private:
  struct Destroy {
    void operator()(rd_kafka_message_s* message) const noexcept;
  };
  std::unique_ptr<rd_kafka_message_s, Destroy> message_;
};

class Consumer {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    // These partitions are this member's from now on; each gets the offset to begin at. May block: the group
    // waits for it. False: it cannot be found out and the process is about to stop; nothing is read then.
    virtual bool take(std::span<PartitionStart> partitions) = 0;
    // These are not any more; another member may already have them.
    virtual void lose(std::span<const std::int32_t> partitions) = 0;
  };

  // Joins the group. Takes `conf`, which has the way to the brokers and the group's name.
  // REQUIRES: the owner outlives the consumer.
  static Result<std::unique_ptr<Consumer>> create(rd_kafka_conf_s* conf, const std::string& topic,
                                                  Owner& owner);
  ~Consumer();  // leave()

  // The next record, if one comes within `timeout_us`. Has to be called at least every few minutes, also by
  // who wants no record now (hold()), or the group takes the partitions away.
  std::optional<ConsumedRecord> poll(std::int64_t timeout_us);
  // No more records until release(); poll() keeps the membership.
  void hold();
  void release();
  // Leaves the group and joins it again, so that all partitions are asked for anew.
  void rejoin();
  // Tells the group at once, so that it need not wait for the session's end. Idempotent.
  void leave();

  // Records that this member's partitions have from `starts` on, by what the brokers last said. Any thread.
  std::int64_t records_behind(std::span<const PartitionStart> starts) const;

 private:
  Consumer(std::string topic, Owner& owner) : topic_(std::move(topic)), owner_(owner) {}
  // What librdkafka calls within poll(), with this as `opaque`.
  struct Rebalance;
  void join();
  void apply_hold();

  struct Destroy {
    void operator()(rd_kafka_s* client) const noexcept;
  };
  const std::string topic_;
  Owner& owner_;
  std::unique_ptr<rd_kafka_s, Destroy> client_;
  bool is_member_ = false;
  bool held_ = false;
};

}  // namespace kavach::sink
