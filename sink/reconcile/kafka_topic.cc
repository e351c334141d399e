#include "sink/reconcile/kafka_topic.h"

#include <charconv>
#include <optional>
#include <utility>

#include "sink/kafka/record.h"
#include "sink/writer/dead_letters.h"

namespace kavach::sink {
namespace {

struct Decoded {
  RecordView view;
  WallMicros accepted_at = 0;  // as the record has it, in milliseconds
};

Decoded headers_of(const ConsumedRecord& record) {
  Decoded found;
  found.view.value = record.value();
  std::int64_t timestamp_ms = record.timestamp_ms();
  for (const auto& [name, value] : record.headers()) {
    if (name == kOrgHeader) found.view.org_id = value;
    if (name == kEventHeader) found.view.event_id = value;
    if (name == kNodeHeader) found.view.node_id = value;
    if (name == kVersionHeader) found.view.schema_version = value;
    // A dead letter's own, in case that its topic has another.
    if (name == dead_letter_header::kTimestamp)
      std::from_chars(value.data(), value.data() + value.size(), timestamp_ms);
  }
  found.accepted_at = timestamp_ms * kMicrosPerMilli;
  return found;
}

}  // namespace

Result<std::unique_ptr<KafkaTopic>> KafkaTopic::create(const KafkaTopicOptions& options,
                                                       FindPositions find_positions) {
  std::unique_ptr<KafkaTopic> made(new KafkaTopic(options, std::move(find_positions)));
  auto events = TopicReader::create(options.kafka, options.topic, options.timeout_us);
  if (!events) return events.error();
  auto letters = TopicReader::create(options.kafka, options.dead_letter_topic, options.timeout_us);
  if (!letters) return letters.error();
  made->events_ = std::move(*events);
  made->letters_ = std::move(*letters);
  return made;
}

Status KafkaTopic::note_position(const Period& period) {
  const auto positions = find_positions_(options_.topic);
  if (!positions) return positions.error();
  next_offsets_.clear();
  for (const PartitionPosition& at : *positions) next_offsets_[at.partition] = at.next_offset;
  auto slices = events_->locate(period.since);
  if (!slices) return slices.error();
  if (slices->empty()) return failure("there is no topic " + options_.topic + " (see kavachd topics create)");
  slices_ = std::move(*slices);
  return {};
}

Result<std::uint64_t> KafkaTopic::read(const Period& period, const FoundVisitor& each) {
  return read(*events_, slices_, period, each);
}

Result<std::uint64_t> KafkaTopic::read_letters(const Period& period, const FoundVisitor& each) {
  const auto slices = letters_->locate(period.since);
  if (!slices) return slices.error();
  return read(*letters_, *slices, period, each);
}

Result<std::uint64_t> KafkaTopic::read(TopicReader& reader, const std::vector<TopicSlice>& slices,
                                       const Period& period, const FoundVisitor& each) const {
  RecordDecoder decoder;
  Batch batch;
  Uuid node;
  std::string arena;
  std::uint64_t unreadable = 0;
  const Status read = reader.read(slices, [&](const ConsumedRecord& record) {
    const Decoded found = headers_of(record);
    const auto next = next_offsets_.find(record.partition());
    const bool is_due = next != next_offsets_.end() && record.offset() < next->second;
    if (decoder.decode(found.view, batch, node, arena)) {
      for (std::uint32_t i = 0; i < batch.events.size(); ++i) {
        const Event& event = batch.events[i];
        each({.id = event_id(batch.id, i),
              .org_id = batch.org_id,
              .project_id = batch.project_id,
              .key = event.idempotency_key,
              .received_at = batch.received_at,
              .timestamp = event.timestamp,
              .is_due = is_due});
      }
      return;
    }
    if (!period.holds(found.accepted_at)) return;
    ++unreadable;
    const auto id = Uuid::parse(found.view.event_id);
    const auto org_id = Uuid::parse(found.view.org_id);
    if (!id || !org_id) return;
    each({.id = *id,
          .org_id = *org_id,
          .project_id = {},
          .received_at = found.accepted_at,
          .timestamp = found.accepted_at,
          .is_due = is_due});
  });
  if (!read) return read.error();
  return unreadable;
}

}  // namespace kavach::sink
