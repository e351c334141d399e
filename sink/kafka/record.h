// Kafka records: events as they travel through the topic, written by the shipper and read by the writer.
//
// A record's value is one JSON object per event, one to a line; its key is the org's id. What belongs to the
// record is in its headers:
//
//   org_id          the organization, a UUID
//   event_id        of the first event; the ids of the others follow (engine/ids.h, event_id)
//   node_id         the id of the journal that it was read from
//   schema_version  "1"
//
// The record's timestamp is the time of acceptance in milliseconds; `received_at` in the value has its
// microseconds. Names are the contract's; `cost` is an exact decimal number of USD. Optional fields that an
// event does not have are left out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "engine/bounds.h"
#include "engine/event.h"
#include "engine/ids.h"
#include "engine/result.h"

namespace kavach::sink {

inline constexpr std::string_view kSchemaVersion = "1";
inline constexpr std::string_view kOrgHeader = "org_id";
inline constexpr std::string_view kEventHeader = "event_id";
inline constexpr std::string_view kNodeHeader = "node_id";
inline constexpr std::string_view kVersionHeader = "schema_version";

// The longest line. A text has a bound in characters, of which each takes six bytes of JSON at most; the rest
// are names, numbers and times. So it is not a body's length that a topic has to take.
inline constexpr std::size_t kLineBytesMax =
    6 * (4 * bounds::kNameCharsMax + bounds::kProviderCharsMax + bounds::kPromptCharsMax) + 1024;
static_assert(kLineBytesMax <= (20 << 10), "as the help of kafka.record_bytes_max says");

// Appends to `out` the value of a record with events of `batch` from `first` on, until there are `events_max`
// of them or the next one would pass `bytes_max`; at least one. Returns how many. The caller keeps `out`, so
// that nothing is allocated once it has grown. REQUIRES: first < batch.events.size(), events_max > 0.
std::size_t encode_record(const Batch& batch, std::size_t first, std::size_t events_max,
                          std::size_t bytes_max, std::string& out);

// A record as it was consumed; a header that it does not have is absent (data() == nullptr).
struct RecordView {
  std::string_view value;
  std::string_view org_id;
  std::string_view event_id;
  std::string_view node_id;
  std::string_view schema_version;
};

enum class RecordFault : std::uint8_t {
  kMissingHeader,   // `name` is the header
  kBadHeader,       // likewise
  kUnknownVersion,  // of the schema: written by a newer Kavach
  kEmpty,
  kBadJson,
  kMissingField,  // `name` is the field
  kBadField,      // likewise
  kMixedBatch,    // lines that cannot be of one batch differ in the field `name`
  kTooManyEvents,
};

// Why a record cannot be decoded. It says nothing of the record's content: that may be a prompt.
struct RecordFailure {
  RecordFault fault = RecordFault::kEmpty;
  std::string_view name = {};  // a constant
  std::size_t line = 0;        // from 1; 0: none
  std::string text() const;    // `missing field "model" in line 3`
};
[[noreturn]] void throw_exception_from_error(const RecordFailure& failure,
                                             const boost::source_location& where);

// One thread. Any bytes are safe to pass.
class RecordDecoder {
 public:
  RecordDecoder();
  ~RecordDecoder();
  // The events of a record as a batch, whose id is that of its first event, and the node. The texts of the
  // batch are in `arena` (cleared first). Fields that are not known are ignored.
  Result<void, RecordFailure> decode(const RecordView& record, Batch& batch, Uuid& node, std::string& arena);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kavach::sink
