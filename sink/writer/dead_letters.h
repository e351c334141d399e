// Dead letters: records that cannot be stored, kept in a topic of their own with the reason.
//
// A dead letter has the record's key, value and headers as they were, and five headers more that say why and
// where it was. Its way there is at least once: after a crash the same record may be buried twice. Replaying
// is safe all the same, since an event that is stored already changes nothing.
//
// Which letters were replayed is a committed offset of the group `<group>-dlq`; nobody consumes in that
// group.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/result.h"
#include "sink/writer/consumer.h"

struct rd_kafka_s;
struct rd_kafka_conf_s;

namespace kavach::sink {

namespace dead_letter_header {
inline constexpr std::string_view kReason = "kavach-dlq-reason";
inline constexpr std::string_view kTopic = "kavach-dlq-topic";
inline constexpr std::string_view kPartition = "kavach-dlq-partition";
inline constexpr std::string_view kOffset = "kavach-dlq-offset";
inline constexpr std::string_view kTimestamp = "kavach-dlq-timestamp-ms";
}  // namespace dead_letter_header

// A record to be written. Its views are those of the record that it was made from.
struct OutgoingRecord {
  std::string_view topic;
  std::string_view key;    // null: none
  std::string_view value;  // null: none
  std::int64_t timestamp_ms = 0;
  std::vector<std::pair<std::string_view, std::string>> headers;
};

// `record` as a dead letter of `topic`.
OutgoingRecord bury(const ConsumedRecord& record, std::string_view reason, std::string_view topic);
// The record that a dead letter was, back to the topic that it came from. The failure: it is no dead letter.
Result<OutgoingRecord> revive(const ConsumedRecord& letter);

// Writes records and waits until the brokers have them.
class RecordSender {
 public:
  // Takes `conf`, which has the way to the brokers.
  static Result<std::unique_ptr<RecordSender>> create(rd_kafka_conf_s* conf);
  ~RecordSender();

  // All of them acknowledged, within `timeout_us`. After a failure some may be there: send all again.
  Status send(std::span<const OutgoingRecord> records, std::int64_t timeout_us);

 private:
  struct Impl;
  explicit RecordSender(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Reads a dead-letter topic from end to end, for an administrator.
class DeadLetterReader {
 public:
  // Takes `conf`, which has the way to the brokers and `<group>-dlq` as its group.
  static Result<std::unique_ptr<DeadLetterReader>> create(rd_kafka_conf_s* conf, std::string topic,
                                                          std::int64_t timeout_us);
  ~DeadLetterReader();

  // Calls `each` for every letter that is there now, partition by partition in their order: those that were
  // not replayed yet, or all. Ends with the first failure of `each`.
  Status read(bool all, const std::function<Status(ConsumedRecord letter)>& each);
  // What read() went through counts as replayed.
  Status remember();

 private:
  struct Impl;
  explicit DeadLetterReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kavach::sink
