// A frame's payload: one admitted batch, encoded once, compactly, for the journal.
//
// The format (byte by byte) is in sink/JOURNAL.md. Events of a batch mostly repeat their agent, provider,
// model and run, and their timestamps are close: such fields cost one bit or a small delta.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/event.h"
#include "engine/result.h"

namespace kavach::sink {

enum class FrameError : std::uint8_t {
  kTruncated,    // the payload ends within a field
  kUnknownType,  // written by a newer version
  kBadField,     // a length, flag or count that no encoder writes
};

// Appends to `out` the events of `batch` whose byte in `admitted` is not 0; an empty `admitted` takes all.
// REQUIRES: admitted.empty() || admitted.size() == batch.events.size(); at least one event is taken.
// Ids are by position in the frame: event i of the frame is event_id(batch.id, i).
// An event takes about 50 bytes when its key is a UUID and its names repeat.
void encode_batch(const Batch& batch, std::span<const std::uint8_t> admitted, std::vector<std::uint8_t>& out);

// Reads a payload. The views in `batch` point into `payload` and into `arena` (cleared first), where keys
// that were stored as 16 bytes get their text back. Any bytes are safe to pass.
Result<void, FrameError> decode_batch(std::span<const std::uint8_t> payload, Batch& batch,
                                      std::string& arena);

// How many events a payload says that it has; 0 when it is none.
std::uint64_t count_events(std::span<const std::uint8_t> payload) noexcept;

}  // namespace kavach::sink
