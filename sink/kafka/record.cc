#include "sink/kafka/record.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <array>
#include <charconv>
#include <cstring>
#include <stdexcept>

#include "engine/bounds.h"
#include "engine/money.h"
#include "engine/padded_buffer.h"
#include "engine/timestamp.h"

namespace kavach::sink {
namespace {

namespace od = simdjson::ondemand;

constexpr std::array<std::string_view, 3> kSystems{"ak", "lg", "ac"};

// --- encoding ----------------------------------------------------------------------------------------------

void append_string(std::string_view text, std::string& out) {
  constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  std::size_t plain = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    out.append(text, plain, i - plain);
    plain = i + 1;
    out += '\\';
    if (c >= 0x20) {
      out += text[i];
    } else {
      out += "u00";
      out += kHex[c >> 4];
      out += kHex[c & 15];
    }
  }
  out.append(text, plain);
  out += '"';
}

void append_number(std::int64_t value, std::string& out) {
  char text[20];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  out.append(text, end);
}

// 1500000 nano-dollars as 0.0015.
void append_cost(NanoDollars cost, std::string& out) {
  append_number(cost / kNanoPerDollar, out);
  std::int64_t rest = cost % kNanoPerDollar;
  if (rest == 0) return;
  char digits[10] = {'.'};
  for (std::size_t i = 9; i > 0; --i, rest /= 10) digits[i] = static_cast<char>('0' + rest % 10);
  std::size_t size = sizeof digits;
  while (digits[size - 1] == '0') --size;
  out.append(digits, size);
}

void append_time(WallMicros t, std::string& out) {
  char text[kTimestampBytesMax];
  out += '"';
  out.append(text, write_timestamp(t, text));
  out += '"';
}

void append_event(const Batch& batch, const Event& event, std::string& out) {
  char project[36];
  batch.project_id.write_text(project);
  out += R"({"agent_name":)";
  append_string(event.agent_name, out);
  out += R"(,"provider":)";
  append_string(event.provider, out);
  out += R"(,"model":)";
  append_string(event.model, out);
  out += R"(,"input_tokens":)";
  append_number(event.input_tokens, out);
  out += R"(,"output_tokens":)";
  append_number(event.output_tokens, out);
  out += R"(,"cost":)";
  append_cost(event.cost, out);
  out += R"(,"timestamp":)";
  append_time(event.timestamp, out);
  out += R"(,"duration_ms":)";
  append_number(event.duration_ms, out);
  if (!event.idempotency_key.empty()) {
    out += R"(,"idempotency_key":)";
    append_string(event.idempotency_key, out);
  }
  if (!event.run_id.empty()) {
    out += R"(,"run_id":)";
    append_string(event.run_id, out);
  }
  if (!event.prompt.empty()) {
    out += R"(,"prompt":)";
    append_string(event.prompt, out);
  }
  if (event.is_error) out += R"(,"is_error":true)";
  if (event.partial) out += R"(,"partial":true)";
  out += R"(,"received_at":)";
  append_time(batch.received_at, out);
  out += R"(,"project_id":")";
  out.append(project, sizeof project);
  out += R"(","ingest_system":")";
  out += kSystems[static_cast<std::size_t>(batch.system)];
  out += "\"}";
}

// --- decoding ----------------------------------------------------------------------------------------------

// One line's fields; what they are worth is known when all have been read.
enum Field : std::uint32_t {
  kAgentName,
  kProvider,
  kModel,
  kInputTokens,
  kOutputTokens,
  kCost,
  kTimestamp,
  kDurationMs,
  kReceivedAt,
  kProjectId,
  kIngestSystem,
  kRequiredFields,  // the number of those that every event has
  kIdempotencyKey = kRequiredFields,
  kRunId,
  kPrompt,
  kIsError,
  kPartial,
  kFields,
};
constexpr std::array<std::string_view, kFields> kNames{
    "agent_name", "provider",    "model",       "input_tokens", "output_tokens", "cost",
    "timestamp",  "duration_ms", "received_at", "project_id",   "ingest_system", "idempotency_key",
    "run_id",     "prompt",      "is_error",    "partial"};

std::string_view trimmed(std::string_view token) {
  const std::size_t end = token.find_last_not_of(" \t\r\n");
  return token.substr(0, end == std::string_view::npos ? 0 : end + 1);
}

}  // namespace

std::size_t encode_record(const Batch& batch, std::size_t first, std::size_t events_max,
                          std::size_t bytes_max, std::string& out) {
  const std::size_t start = out.size();
  std::size_t count = 0;
  while (count < events_max && first + count < batch.events.size()) {
    const std::size_t before = out.size();
    if (count > 0) out += '\n';
    append_event(batch, batch.events[first + count], out);
    if (count > 0 && out.size() - start > bytes_max) {
      out.resize(before);
      break;
    }
    ++count;
  }
  return count;
}

std::string RecordFailure::text() const {
  const auto said = [this]() -> std::string {
    switch (fault) {
      case RecordFault::kMissingHeader:
        return fmt::format("missing header \"{}\"", name);
      case RecordFault::kBadHeader:
        return fmt::format("bad header \"{}\"", name);
      case RecordFault::kUnknownVersion:
        return "unknown schema version";
      case RecordFault::kEmpty:
        return "empty record";
      case RecordFault::kBadJson:
        return "bad JSON";
      case RecordFault::kMissingField:
        return fmt::format("missing field \"{}\"", name);
      case RecordFault::kBadField:
        return fmt::format("bad value of field \"{}\"", name);
      case RecordFault::kMixedBatch:
        return fmt::format("another \"{}\" than in the line before", name);
      case RecordFault::kTooManyEvents:
        return "too many events";
    }
    return {};
  };
  return line == 0 ? said() : fmt::format("{} in line {}", said(), line);
}

void throw_exception_from_error(const RecordFailure& failure, const boost::source_location&) {
  throw std::runtime_error(failure.text());
}

class RecordDecoder::Impl {
 public:
  Result<void, RecordFailure> decode(const RecordView& record, Batch& batch, Uuid& node, std::string& arena);

 private:
  using Outcome = Result<void, RecordFailure>;
  Outcome decode_line(std::size_t at, std::size_t size, bool is_first, Batch& batch, std::string& arena);
  bool read_field(Field field, od::value value, Event& event, std::string& arena);
  static bool read_text(od::value value, std::string& arena, std::string_view& out);
  static bool read_count(od::value value, std::int64_t& out);
  static bool read_time(od::value value, WallMicros& out);

  // What the lines of a record have in common, as the current line has it.
  struct Shared {
    WallMicros received_at = 0;
    Uuid project_id;
    IngestSystem system{};
  };
  od::parser parser_;
  PaddedBuffer buffer_;
  Shared shared_;
};

bool RecordDecoder::Impl::read_text(od::value value, std::string& arena, std::string_view& out) {
  std::string_view text;
  if (value.get_string().get(text) != simdjson::SUCCESS) return false;
  const std::size_t at = arena.size();
  arena.append(text);  // there is room: what is unescaped is never longer than its JSON
  out = std::string_view(arena).substr(at);
  return true;
}

bool RecordDecoder::Impl::read_count(od::value value, std::int64_t& out) {
  return value.get_int64().get(out) == simdjson::SUCCESS && out >= 0;
}

bool RecordDecoder::Impl::read_time(od::value value, WallMicros& out) {
  std::string_view text;
  if (value.get_string().get(text) != simdjson::SUCCESS) return false;
  const auto time = parse_timestamp(text);
  if (time) out = *time;
  return time.has_value();
}

bool RecordDecoder::Impl::read_field(Field field, od::value value, Event& event, std::string& arena) {
  std::string_view text;
  switch (field) {
    case kAgentName:
      return read_text(value, arena, event.agent_name);
    case kProvider:
      return read_text(value, arena, event.provider);
    case kModel:
      return read_text(value, arena, event.model);
    case kInputTokens:
      return read_count(value, event.input_tokens);
    case kOutputTokens:
      return read_count(value, event.output_tokens);
    case kCost: {
      const std::string_view token = trimmed(value.raw_json_token());
      const auto cost = parse_nano_dollars(token);
      if (!cost || *cost < 0) return false;
      event.cost = *cost;
      // Consumed, so that the object's iterator goes on behind it.
      double ignored = 0;
      return value.get_double().get(ignored) == simdjson::SUCCESS;
    }
    case kTimestamp:
      return read_time(value, event.timestamp);
    case kDurationMs:
      return read_count(value, event.duration_ms);
    case kReceivedAt:
      return read_time(value, shared_.received_at);
    case kProjectId: {
      if (value.get_string().get(text) != simdjson::SUCCESS) return false;
      const auto id = Uuid::parse(text);
      if (id) shared_.project_id = *id;
      return id.has_value();
    }
    case kIngestSystem:
      if (value.get_string().get(text) != simdjson::SUCCESS) return false;
      for (std::size_t i = 0; i < kSystems.size(); ++i) {
        if (kSystems[i] != text) continue;
        shared_.system = static_cast<IngestSystem>(i);
        return true;
      }
      return false;
    case kIdempotencyKey:
      return read_text(value, arena, event.idempotency_key);
    case kRunId:
      return read_text(value, arena, event.run_id);
    case kPrompt:
      return read_text(value, arena, event.prompt);
    case kIsError:
      return value.get_bool().get(event.is_error) == simdjson::SUCCESS;
    case kPartial:
      return value.get_bool().get(event.partial) == simdjson::SUCCESS;
    case kFields:
      break;
  }
  return false;
}

RecordDecoder::Impl::Outcome RecordDecoder::Impl::decode_line(std::size_t at, std::size_t size, bool is_first,
                                                              Batch& batch, std::string& arena) {
  const RecordFailure bad_json{.fault = RecordFault::kBadJson};
  // What lies behind the line is the next one, or the buffer's padding.
  const simdjson::padded_string_view line(buffer_.data() + at, size, size + bounds::kBodyPadding);
  od::document document;
  od::object object;
  if (parser_.iterate(line).get(document) != simdjson::SUCCESS) return bad_json;
  if (document.get_object().get(object) != simdjson::SUCCESS) return bad_json;
  Event event;
  std::uint32_t seen = 0;
  for (auto entry : object) {
    od::field pair;
    std::string_view name;
    if (std::move(entry).get(pair) != simdjson::SUCCESS) return bad_json;
    if (pair.unescaped_key().get(name) != simdjson::SUCCESS) return bad_json;
    std::size_t field = 0;
    while (field < kFields && kNames[field] != name) ++field;
    if (field == kFields) continue;
    if (!read_field(static_cast<Field>(field), pair.value(), event, arena))
      return RecordFailure{.fault = RecordFault::kBadField, .name = kNames[field]};
    seen |= 1U << field;
  }
  // Nothing may follow the object.
  const char* behind = nullptr;
  if (document.current_location().get(behind) != simdjson::OUT_OF_BOUNDS) return bad_json;
  for (std::size_t field = 0; field < kRequiredFields; ++field) {
    if ((seen >> field & 1) == 0)
      return RecordFailure{.fault = RecordFault::kMissingField, .name = kNames[field]};
  }
  const auto mixed = [](Field field) {
    return RecordFailure{.fault = RecordFault::kMixedBatch, .name = kNames[field]};
  };
  if (!is_first) {
    if (batch.received_at != shared_.received_at) return mixed(kReceivedAt);
    if (batch.project_id != shared_.project_id) return mixed(kProjectId);
    if (batch.system != shared_.system) return mixed(kIngestSystem);
  }
  batch.received_at = shared_.received_at;
  batch.project_id = shared_.project_id;
  batch.system = shared_.system;
  batch.events.push_back(event);
  return {};
}

Result<void, RecordFailure> RecordDecoder::Impl::decode(const RecordView& record, Batch& batch, Uuid& node,
                                                        std::string& arena) {
  batch.events.clear();
  arena.clear();
  if (record.schema_version.data() == nullptr)
    return RecordFailure{.fault = RecordFault::kMissingHeader, .name = kVersionHeader};
  if (record.schema_version != kSchemaVersion) return RecordFailure{.fault = RecordFault::kUnknownVersion};
  struct Header {
    std::string_view name;
    std::string_view text;
    Uuid& id;
  };
  for (const Header& header :
       {Header{kOrgHeader, record.org_id, batch.org_id}, Header{kEventHeader, record.event_id, batch.id},
        Header{kNodeHeader, record.node_id, node}}) {
    if (header.text.data() == nullptr)
      return RecordFailure{.fault = RecordFault::kMissingHeader, .name = header.name};
    const auto id = Uuid::parse(header.text);
    if (!id) return RecordFailure{.fault = RecordFault::kBadHeader, .name = header.name};
    header.id = *id;
  }
  if (batch.id.bytes[6] >> 4 != 7)
    return RecordFailure{.fault = RecordFault::kBadHeader, .name = kEventHeader};
  const std::size_t number = (batch.id.bytes[6] & std::size_t{0xf}) << 8 | batch.id.bytes[7];
  if (record.value.empty()) return RecordFailure{.fault = RecordFault::kEmpty};

  buffer_.clear();
  buffer_.append(record.value);
  arena.reserve(record.value.size());
  std::size_t line = 0;
  for (std::size_t at = 0; at < record.value.size();) {
    const std::size_t end = std::min(record.value.find('\n', at), record.value.size());
    ++line;
    if (number + line > bounds::kBatchEventsMax)
      return RecordFailure{.fault = RecordFault::kTooManyEvents, .line = line};
    if (auto decoded = decode_line(at, end - at, line == 1, batch, arena); !decoded) {
      RecordFailure why = decoded.error();
      why.line = line;
      return why;
    }
    at = end + 1;
  }
  return {};
}

RecordDecoder::RecordDecoder() : impl_(std::make_unique<Impl>()) {}
RecordDecoder::~RecordDecoder() = default;

Result<void, RecordFailure> RecordDecoder::decode(const RecordView& record, Batch& batch, Uuid& node,
                                                  std::string& arena) {
  return impl_->decode(record, batch, node, arena);
}

}  // namespace kavach::sink
