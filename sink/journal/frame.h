// A frame's payload: one admitted batch, encoded once, compactly, for the journal.
//
// The format (byte by byte) is in sink/JOURNAL.md. Events of a batch mostly repeat their agent, provider,
// model and run, and their timestamps are close: such fields cost one bit or a small delta.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/event.h"
#include "engine/result.h"

namespace kavach::sink {

enum class FrameError : std::uint8_t {
  kTruncated,       // the payload ends within a field
  kUnknownType,     // written by a newer version
  kBadField,        // a length, flag or count that no encoder writes
};

// Appends to `out` the events of `batch` whose byte in `admitted` is not 0; an empty `admitted` takes all.
// REQUIRES: admitted.empty() || admitted.size() == batch.events.size(); at least one event is taken.
// Ids are by position in the frame: event i of the frame is event_id(batch.id, i).
// The frame of a parsed body is never longer than that body plus 64 bytes.
void encode_batch(const Batch& batch, std::span<const std::uint8_t> admitted, std::vector<std::uint8_t>& out);

// Reads a payload; the views in `batch` point into `payload`. Any bytes are safe to pass.
Result<void, FrameError> decode_batch(std::span<const std::uint8_t> payload, Batch& batch);

}  // namespace kavach::sink
