#include "sink/journal/frame.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <limits>
#include <optional>

#include "engine/bounds.h"
#include "engine/check.h"

namespace kavach::sink {
namespace {

constexpr std::uint8_t kTypeBatch1 = 1;

// Flag bits of an event.
constexpr std::uint32_t kSameAgent = 1 << 0;
constexpr std::uint32_t kSameProvider = 1 << 1;
constexpr std::uint32_t kSameModel = 1 << 2;
constexpr std::uint32_t kSameRun = 1 << 3;
constexpr std::uint32_t kIsError = 1 << 4;
constexpr std::uint32_t kPartial = 1 << 5;
constexpr std::uint32_t kHasKey = 1 << 6;
constexpr std::uint32_t kKeyIsUuid = 1 << 7;
constexpr std::uint32_t kHasPrompt = 1 << 8;
constexpr std::uint32_t kRunIsUuid = 1 << 9;
constexpr std::uint32_t kAllFlags = (1 << 10) - 1;

constexpr std::size_t kUuidText = 36;
// What one event takes at most besides its strings: flags, timestamp, four numbers, six lengths.
constexpr std::size_t kEventOverhead = 2 + 10 * 5 + 5 * 6;

// What stands before the events, at most.
constexpr std::size_t kHeaderBytesMax = 2 + 3 * 16 + 2 * 10;
constexpr std::size_t kRoomBytes = 4096;

std::size_t event_bytes_max(const Event& event) {
  return kEventOverhead + event.agent_name.size() + event.provider.size() + event.model.size() +
         event.idempotency_key.size() + event.run_id.size() + event.prompt.size();
}

std::uint64_t zigzag(std::int64_t v) {
  return (static_cast<std::uint64_t>(v) << 1) ^ static_cast<std::uint64_t>(v >> 63);
}
std::int64_t unzigzag(std::uint64_t v) {
  return static_cast<std::int64_t>(v >> 1) ^ -static_cast<std::int64_t>(v & 1);
}

// Writes into memory that was made large enough before.
class Writer {
 public:
  explicit Writer(std::uint8_t* at) : at_(at) {}
  void byte(std::uint8_t v) { *at_++ = v; }
  void u16(std::uint32_t v) {
    byte(static_cast<std::uint8_t>(v));
    byte(static_cast<std::uint8_t>(v >> 8));
  }
  void varint(std::uint64_t v) {
    while (v >= 0x80) {
      byte(static_cast<std::uint8_t>(v | 0x80));
      v >>= 7;
    }
    byte(static_cast<std::uint8_t>(v));
  }
  void uuid(const Uuid& v) {
    std::memcpy(at_, v.bytes.data(), v.bytes.size());
    at_ += v.bytes.size();
  }
  void text(std::string_view v) {
    varint(v.size());
    if (v.empty()) return;
    std::memcpy(at_, v.data(), v.size());
    at_ += v.size();
  }
  std::uint8_t* at() const { return at_; }

 private:
  std::uint8_t* at_;
};

// Reads what may be anything; after the first short read every value is zero and ok() is false.
class Reader {
 public:
  explicit Reader(std::span<const std::uint8_t> bytes)
      : at_(bytes.data()), end_(bytes.data() + bytes.size()) {}
  bool ok() const { return ok_; }
  bool at_end() const { return at_ == end_; }
  std::size_t left() const { return static_cast<std::size_t>(end_ - at_); }
  std::uint8_t byte() {
    if (!need(1)) return 0;
    return *at_++;
  }
  std::uint32_t u16() {
    const std::uint32_t low = byte();
    return low | std::uint32_t{byte()} << 8;
  }
  std::uint64_t varint() {
    std::uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const std::uint8_t b = byte();
      v |= std::uint64_t{b & 0x7fU} << shift;
      if ((b & 0x80) == 0) return v;
    }
    ok_ = false;
    return 0;
  }
  std::int64_t non_negative() {
    const std::uint64_t v = varint();
    if (v > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) ok_ = false;
    return ok_ ? static_cast<std::int64_t>(v) : 0;
  }
  Uuid uuid() {
    Uuid v;
    if (!need(v.bytes.size())) return v;
    std::memcpy(v.bytes.data(), at_, v.bytes.size());
    at_ += v.bytes.size();
    return v;
  }
  std::string_view text() {
    const std::uint64_t size = varint();
    if (!need(size)) return {};
    const std::string_view v(reinterpret_cast<const char*>(at_), size);
    at_ += size;
    return v;
  }

 private:
  bool need(std::uint64_t n) {
    if (ok_ && n <= left()) return true;
    ok_ = false;
    return false;
  }
  const std::uint8_t* at_;
  const std::uint8_t* end_;
  bool ok_ = true;
};

void write_event(Writer& out, const Event& event, const Event& previous, WallMicros received_at) {
  // Only the canonical text: what is stored as 16 bytes must come back as the same 36.
  const auto key = Uuid::parse_canonical(event.idempotency_key);
  const bool same_run = event.run_id == previous.run_id;
  const auto run = same_run ? std::nullopt : Uuid::parse_canonical(event.run_id);
  std::uint32_t flags = 0;
  if (event.agent_name == previous.agent_name) flags |= kSameAgent;
  if (event.provider == previous.provider) flags |= kSameProvider;
  if (event.model == previous.model) flags |= kSameModel;
  if (same_run) flags |= kSameRun;
  if (run) flags |= kRunIsUuid;
  if (event.is_error) flags |= kIsError;
  if (event.partial) flags |= kPartial;
  if (!event.idempotency_key.empty()) flags |= kHasKey;
  if (key) flags |= kKeyIsUuid;
  if (!event.prompt.empty()) flags |= kHasPrompt;

  out.u16(flags);
  out.varint(zigzag(received_at - event.timestamp));
  out.varint(static_cast<std::uint64_t>(event.input_tokens));
  out.varint(static_cast<std::uint64_t>(event.output_tokens));
  out.varint(static_cast<std::uint64_t>(event.duration_ms));
  out.varint(static_cast<std::uint64_t>(event.cost));
  if ((flags & kSameAgent) == 0) out.text(event.agent_name);
  if ((flags & kSameProvider) == 0) out.text(event.provider);
  if ((flags & kSameModel) == 0) out.text(event.model);
  if (run) {
    out.uuid(*run);
  } else if (!same_run) {
    out.text(event.run_id);
  }
  if (key) {
    out.uuid(*key);
  } else if ((flags & kHasKey) != 0) {
    out.text(event.idempotency_key);
  }
  if ((flags & kHasPrompt) != 0) out.text(event.prompt);
}

// REQUIRES: the arena has room, so that earlier views stay.
std::string_view uuid_text(const Uuid& uuid, std::string& arena) {
  const std::size_t at = arena.size();
  arena.resize(at + kUuidText);
  uuid.write_text(arena.data() + at);
  return std::string_view(arena).substr(at, kUuidText);
}

bool read_event(Reader& in, const Event& previous, WallMicros received_at, std::string& arena, Event& event) {
  const std::uint32_t flags = in.u16();
  if ((flags & ~kAllFlags) != 0) return false;
  const std::int64_t age = unzigzag(in.varint());
  if (__builtin_sub_overflow(received_at, age, &event.timestamp)) return false;
  event.input_tokens = in.non_negative();
  event.output_tokens = in.non_negative();
  event.duration_ms = in.non_negative();
  event.cost = in.non_negative();
  event.agent_name = (flags & kSameAgent) != 0 ? previous.agent_name : in.text();
  event.provider = (flags & kSameProvider) != 0 ? previous.provider : in.text();
  event.model = (flags & kSameModel) != 0 ? previous.model : in.text();
  if ((flags & kSameRun) != 0) {
    event.run_id = previous.run_id;
  } else {
    event.run_id = (flags & kRunIsUuid) != 0 ? uuid_text(in.uuid(), arena) : in.text();
  }
  if ((flags & kKeyIsUuid) != 0) {
    event.idempotency_key = uuid_text(in.uuid(), arena);
  } else if ((flags & kHasKey) != 0) {
    event.idempotency_key = in.text();
  }
  if ((flags & kHasPrompt) != 0) event.prompt = in.text();
  event.is_error = (flags & kIsError) != 0;
  event.partial = (flags & kPartial) != 0;
  return true;
}

}  // namespace

void encode_batch(const Batch& batch, std::span<const std::uint8_t> admitted,
                  std::vector<std::uint8_t>& out) {
  KAVACH_DCHECK(admitted.empty() || admitted.size() == batch.events.size(), "one byte per event");
  const auto is_taken = [admitted](std::size_t i) { return admitted.empty() || admitted[i] != 0; };
  std::size_t count = batch.events.size();
  if (!admitted.empty())
    count = static_cast<std::size_t>(std::count_if(admitted.begin(), admitted.end(), std::identity{}));
  KAVACH_DCHECK(count > 0, "a frame holds at least one event");

  // Written here first, some events at a time: `out` would have to be made as large as they could be, and its
  // bytes zero, and they are a fifth of that.
  std::array<std::uint8_t, kRoomBytes> room;
  static_assert(kRoomBytes >= kHeaderBytesMax);
  Writer writer(room.data());
  const auto flush = [&] {
    out.insert(out.end(), room.data(), writer.at());
    writer = Writer(room.data());
  };
  writer.byte(kTypeBatch1);
  writer.byte(static_cast<std::uint8_t>(batch.system));
  writer.uuid(batch.org_id);
  writer.uuid(batch.project_id);
  writer.uuid(batch.id);
  writer.varint(static_cast<std::uint64_t>(batch.received_at));
  writer.varint(count);
  static constexpr Event kNone{};
  const Event* previous = &kNone;
  for (std::size_t i = 0; i < batch.events.size(); ++i) {
    if (!is_taken(i)) continue;
    const Event& event = batch.events[i];
    const std::size_t bytes_max = event_bytes_max(event);
    if (bytes_max > static_cast<std::size_t>(room.data() + room.size() - writer.at())) flush();
    if (bytes_max <= room.size()) {
      write_event(writer, event, *previous, batch.received_at);
    } else {
      const std::size_t start = out.size();
      out.resize(start + bytes_max);
      Writer large(out.data() + start);
      write_event(large, event, *previous, batch.received_at);
      out.resize(static_cast<std::size_t>(large.at() - out.data()));
    }
    previous = &event;
  }
  flush();
}

Result<void, FrameError> decode_batch(std::span<const std::uint8_t> payload, Batch& batch,
                                      std::string& arena) {
  Reader in(payload);
  batch.events.clear();
  arena.clear();
  if (in.byte() != kTypeBatch1) return in.ok() ? FrameError::kUnknownType : FrameError::kTruncated;
  const std::uint8_t system = in.byte();
  batch.org_id = in.uuid();
  batch.project_id = in.uuid();
  batch.id = in.uuid();
  batch.received_at = in.non_negative();
  const std::uint64_t count = in.varint();
  if (!in.ok()) return FrameError::kTruncated;
  if (system > static_cast<std::uint8_t>(IngestSystem::kAgentCost)) return FrameError::kBadField;
  if (count == 0 || count > bounds::kBatchEventsMax) return FrameError::kBadField;
  batch.system = static_cast<IngestSystem>(system);
  // Two texts of an event at most come from 16 bytes; reserved, so that no view moves.
  arena.reserve(count * 2 * kUuidText);
  batch.events.resize(count);
  static constexpr Event kNone{};
  for (std::size_t i = 0; i < count; ++i) {
    batch.events[i] = Event{};
    const bool sound =
        read_event(in, i == 0 ? kNone : batch.events[i - 1], batch.received_at, arena, batch.events[i]);
    if (!in.ok()) return FrameError::kTruncated;
    if (!sound) return FrameError::kBadField;
  }
  if (!in.at_end()) return FrameError::kBadField;
  return {};
}

std::uint64_t count_events(std::span<const std::uint8_t> payload) noexcept {
  Reader in(payload);
  if (in.byte() != kTypeBatch1) return 0;
  in.byte();                              // the system
  for (int i = 0; i < 3; ++i) in.uuid();  // org, project, batch
  in.non_negative();                      // received_at
  const std::uint64_t count = in.varint();
  return in.ok() && count <= bounds::kBatchEventsMax ? count : 0;
}

}  // namespace kavach::sink
