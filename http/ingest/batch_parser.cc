#include "http/ingest/batch_parser.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/bounds.h"
#include "engine/money.h"
#include "engine/timestamp.h"
#include "http/ingest/direct_pass.h"
#include "http/ingest/error_list.h"
#include "http/ingest/event_members.h"
#include "http/ingest/python_json.h"
#include "http/ingest/utf8.h"
#include "http/ingest/validate.h"

namespace kavach::http {
namespace {

namespace od = simdjson::ondemand;

static_assert(bounds::kBodyPadding >= simdjson::SIMDJSON_PADDING, "simdjson reads that far behind a body");

// simdjson keeps about six bytes per byte of the largest body seen. A larger body than this is rare enough to
// pay for its own memory, which is then given back.
constexpr std::size_t kKeptCapacityMax = std::size_t{1} << 20;
// Unknown members may nest; deeper than this the slow pass looks at them.
constexpr int kUnknownDepthMax = 16;
constexpr Event kEmpty{};

// Whether the raw key is `name`, which is given with its closing quote. Reads name's size at `key`: the
// body's padding makes that safe anywhere.
template <std::size_t kSize>
bool is_key(const char* key, const char (&name)[kSize]) noexcept {
  return std::memcmp(key, name, kSize - 1) == 0;
}

// A scalar as it was written. simdjson's token reaches up to the next one, so whitespace may follow.
std::string_view token_of(od::value& value) noexcept {
  std::string_view token = value.raw_json_token();
  while (!token.empty() && is_json_space(token.back())) token.remove_suffix(1);
  return token;
}

// A string as it was written, with its quotes; empty when the value is none. Consumes it: what simdjson finds
// unread it skips, and a string before a colon it takes for a key, with all that follows, unchecked.
std::string_view take_string(od::value& value) noexcept {
  const std::string_view token = token_of(value);
  if (token.size() < 2 || token.front() != '"' || token.back() != '"') return {};
  od::raw_json_string taken;
  return value.get_raw_json_string().get(taken) == simdjson::SUCCESS ? token : std::string_view{};
}

// The fast pass over one body. Everything it does not expect makes it return false, without saying why.
class FastPass {
 public:
  FastPass(std::string_view body, const ParseLimits& limits, WallMicros now, Batch& batch,
           std::string& arena) noexcept
      : body_(body),
        limits_(limits),
        now_(now),
        batch_(batch),
        arena_(arena),
        has_escapes_(!body.empty() && std::memchr(body.data(), '\\', body.size()) != nullptr) {}

  bool run(od::parser& parser) {
    od::document document;
    const simdjson::padded_string_view padded(body_.data(), body_.size(),
                                              body_.size() + bounds::kBodyPadding);
    if (parser.iterate(padded).get(document) != simdjson::SUCCESS) return false;
    od::object root;
    if (document.get_object().get(root) != simdjson::SUCCESS) return false;
    bool seen_events = false;
    for (auto next : root) {
      if (next.error() != simdjson::SUCCESS) return false;
      od::field&& field = std::move(next).value_unsafe();
      const char* const key = field.key().raw();
      if (is_key(key, "events\"")) {
        if (std::exchange(seen_events, true) || !events(field.value())) return false;
      } else if (!is_plain_key(key) || !skip(field.value(), 0)) {
        return false;
      }
    }
    // Nothing may follow: there is no token at which the document could go on.
    return seen_events && document.current_location().error() == simdjson::OUT_OF_BOUNDS;
  }

 private:
  bool events(od::value& value) {
    od::array array;
    if (value.get_array().get(array) != simdjson::SUCCESS) return false;
    for (auto next : array) {
      od::object object;
      if (next.get_object().get(object) != simdjson::SUCCESS) return false;
      if (batch_.events.size() == limits_.batch_events_max) return false;
      batch_.events.push_back(kEmpty);
      if (!event(object, batch_.events.back())) return false;
    }
    return !batch_.events.empty();
  }

  bool event(od::object& object, Event& event) {
    std::uint32_t seen = 0;
    for (auto next : object) {
      if (next.error() != simdjson::SUCCESS) return false;
      od::field&& field = std::move(next).value_unsafe();
      const char* const key = field.key().raw();
      od::value& value = field.value();
      std::uint32_t bit = 0;
      bool ok = false;
      switch (*key) {
        case 'a':
          if (is_key(key, "agent_name\"")) {
            bit = kAgentName;
            ok = text(value, 1, bounds::kNameCharsMax, event.agent_name);
          }
          break;
        case 'p':
          if (is_key(key, "provider\"")) {
            bit = kProvider;
            ok = text(value, 1, bounds::kProviderCharsMax, event.provider);
          } else if (is_key(key, "prompt\"")) {
            bit = kPrompt;
            ok = prompt(value, event.prompt);
          } else if (is_key(key, "partial\"")) {
            bit = kPartial;
            ok = boolean(value, event.partial);
          }
          break;
        case 'm':
          if (is_key(key, "model\"")) {
            bit = kModel;
            ok = text(value, 1, bounds::kNameCharsMax, event.model);
          }
          break;
        case 'i':
          if (is_key(key, "input_tokens\"")) {
            bit = kInputTokens;
            ok = integer(value, event.input_tokens);
          } else if (is_key(key, "idempotency_key\"")) {
            bit = kIdempotencyKey;
            ok = optional_text(value, event.idempotency_key);
          }
          break;
        case 'o':
          if (is_key(key, "output_tokens\"")) {
            bit = kOutputTokens;
            ok = integer(value, event.output_tokens);
          }
          break;
        case 'c':
          if (is_key(key, "cost\"")) {
            bit = kCost;
            ok = cost(value, event.cost);
          }
          break;
        case 't':
          if (is_key(key, "timestamp\"")) {
            bit = kTimestamp;
            ok = timestamp(value, event.timestamp);
          }
          break;
        case 'd':
          if (is_key(key, "duration_ms\"")) {
            bit = kDurationMs;
            ok = integer(value, event.duration_ms);
          }
          break;
        case 'r':
          if (is_key(key, "run_id\"")) {
            bit = kRunId;
            ok = optional_text(value, event.run_id);
          }
          break;
        case 's':
          if (is_key(key, "status\"")) {
            bit = kStatus;
            ok = status(value, event.is_error);
          }
          break;
        default:
          break;
      }
      if (bit == 0) ok = is_plain_key(key) && skip(value, 0);
      if (!ok || (seen & bit) != 0) return false;
      seen |= bit;
    }
    return (seen & kSeenRequired) == kSeenRequired;
  }

  // A key without an escape, which therefore is no other spelling of a known one.
  bool is_plain_key(const char* key) const noexcept {
    if (!has_escapes_) return true;
    while (*key != '"' && *key != '\\') ++key;
    return *key == '"';
  }

  bool has_escape(std::string_view token) const noexcept {
    return has_escapes_ && std::memchr(token.data(), '\\', token.size()) != nullptr;
  }

  // The characters of a string without escapes, or a copy of the decoded ones.
  bool chars_of(od::value& value, std::string_view& out) {
    const std::string_view token = take_string(value);
    if (token.empty()) return false;
    if (!has_escape(token)) {
      out = token.substr(1, token.size() - 2);
      return true;
    }
    std::string_view decoded;
    if (value.get_string().get(decoded) != simdjson::SUCCESS) return false;
    // Decoding never lengthens, so that this one reservation keeps all views valid.
    if (arena_.empty()) arena_.reserve(body_.size());
    const std::size_t start = arena_.size();
    arena_ += decoded;
    out = std::string_view(arena_).substr(start);
    return true;
  }

  bool text(od::value& value, std::size_t chars_min, std::size_t chars_max, std::string_view& out) {
    if (!chars_of(value, out) || out.size() < chars_min) return false;
    return out.size() <= chars_max || count_chars(out) <= chars_max;
  }

  bool optional_text(od::value& value, std::string_view& out) {
    return token_of(value) == "null" || text(value, 0, bounds::kNameCharsMax, out);
  }

  bool prompt(od::value& value, std::string_view& out) {
    if (token_of(value) == "null") return true;
    if (!chars_of(value, out)) return false;
    if (arena_.empty() && out.size() > bounds::kPromptCharsMax) arena_.reserve(body_.size());
    out = cut_prompt(out, arena_);
    return true;
  }

  bool integer(od::value& value, std::int64_t& out) noexcept {
    const std::string_view token = token_of(value);
    if (token.empty() || token.size() > kPlainIntDigitsMax) return false;
    if (token.front() == '0' && token.size() > 1) return false;
    std::int64_t parsed = 0;
    for (const char c : token) {
      if (c < '0' || c > '9') return false;
      parsed = parsed * 10 + (c - '0');
    }
    out = parsed;
    return true;
  }

  bool cost(od::value& value, NanoDollars& out) noexcept {
    const std::string_view token = token_of(value);
    if (token.empty() || token.front() == '-') return false;
    const auto nano = parse_nano_dollars(token);
    if (!nano || *nano > kPlainCostMax) return false;
    out = *nano;
    return true;
  }

  bool timestamp(od::value& value, WallMicros& out) {
    std::string_view chars;
    if (!chars_of(value, chars)) return false;
    const auto parsed = parse_timestamp(chars);
    if (!parsed) return false;
    out = std::min(*parsed, now_);
    return true;
  }

  bool status(od::value& value, bool& is_error) noexcept {
    if (token_of(value) == "null") return true;
    const std::string_view token = take_string(value);
    is_error = token == "\"error\"";
    return is_error || token == "\"success\"";
  }

  bool boolean(od::value& value, bool& out) noexcept {
    const std::string_view token = token_of(value);
    out = token == "true";
    return out || token == "false";
  }

  // Walks an unknown value to its end: On-Demand validates only what is looked at.
  bool skip(od::value& value, int depth) {
    if (depth == kUnknownDepthMax) return false;
    od::json_type type;
    if (value.type().get(type) != simdjson::SUCCESS) return false;
    switch (type) {
      case od::json_type::array: {
        od::array array;
        if (value.get_array().get(array) != simdjson::SUCCESS) return false;
        for (auto next : array) {
          od::value item;
          if (std::move(next).get(item) != simdjson::SUCCESS || !skip(item, depth + 1)) return false;
        }
        return true;
      }
      case od::json_type::object: {
        od::object object;
        if (value.get_object().get(object) != simdjson::SUCCESS) return false;
        for (auto next : object) {
          od::field field;
          if (std::move(next).get(field) != simdjson::SUCCESS) return false;
          if (!is_plain_key(field.key().raw()) || !skip(field.value(), depth + 1)) return false;
        }
        return true;
      }
      case od::json_type::string: {
        const std::string_view token = take_string(value);
        if (token.empty()) return false;
        std::string_view decoded;
        return !has_escape(token) || value.get_string().get(decoded) == simdjson::SUCCESS;
      }
      case od::json_type::number:
        return is_json_number(token_of(value));
      case od::json_type::boolean:
        return token_of(value) == "true" || token_of(value) == "false";
      case od::json_type::null:
        return token_of(value) == "null";
    }
    return false;
  }

  const std::string_view body_;
  const ParseLimits& limits_;
  const WallMicros now_;
  Batch& batch_;
  std::string& arena_;
  // Most bodies have none: one look at the whole body saves one at every string.
  const bool has_escapes_;
};

constexpr std::string_view kUtf8Bom = "\xEF\xBB\xBF";

// json.loads would also take UTF-16 and UTF-32. The contract says UTF-8 (as RFC 8259 does), no client sends
// anything else, and bytes of the others are no JSON in UTF-8: they get json.loads' answer for text it cannot
// read.
bool looks_like_utf16_or_32(std::string_view body) noexcept {
  return body.starts_with("\xFE\xFF") || body.starts_with("\xFF\xFE") ||
         (body.size() >= 2 && (body[0] == '\0' || body[1] == '\0'));
}

Refusal unreadable() {
  return {400, R"({"detail":"There was an error parsing the body"})"};
}

}  // namespace

class BatchParser::Impl {
 public:
  explicit Impl(ParseLimits limits) : limits_(limits) {}

  void set_limits(ParseLimits limits) { limits_ = limits; }

  bool direct(std::string_view body, WallMicros now, Batch& batch, std::string& arena) {
    batch.events.clear();
    arena.clear();
    return direct_.run(body, limits_.batch_events_max, now, batch, arena);
  }

  bool fast(std::string_view body, WallMicros now, Batch& batch, std::string& arena) {
    batch.events.clear();
    arena.clear();
    const bool taken = FastPass(body, limits_, now, batch, arena).run(parser_);
    if (parser_.capacity() > kKeptCapacityMax) parser_ = od::parser();
    return taken;
  }

  bool slow(std::string_view body, bool json, WallMicros now, Batch& batch, std::string& arena,
            Refusal& refusal) {
    batch.events.clear();
    arena.clear();
    ErrorList errors;
    if (!json || body.empty()) {
      not_parsed(body, errors);
    } else if (looks_like_utf16_or_32(body) || !is_utf8(body, Surrogates::kAllow)) {
      refusal = unreadable();
      return false;
    } else {
      if (body.starts_with(kUtf8Bom)) body.remove_prefix(kUtf8Bom.size());
      if (const auto fault = check_json(body)) {
        if (fault->message == nullptr) {
          refusal = unreadable();
          return false;
        }
        bad_json(body, *fault, errors);
      } else {
        arena.reserve(body.size());
        validate_batch(body, limits_, now, batch, arena, errors);
      }
    }
    if (errors.empty()) return true;
    refusal = {422, errors.take_body()};
    return false;
  }

 private:
  static void not_parsed(std::string_view body, ErrorList& errors) {
    if (body.empty()) {
      errors.add({.type = "missing", .loc = R"("body")", .msg = "Field required", .ctx = {}}, "null");
      return;
    }
    const ValidationError error = {
        .type = "model_attributes_type",
        .loc = R"("body")",
        .msg = "Input should be a valid dictionary or object to extract fields from",
        .ctx = {}};
    // Bytes that are no text cannot be echoed in JSON.
    if (is_utf8(body, Surrogates::kRefuse)) {
      errors.add_echo_text(error, body);
    } else {
      errors.add(error, "null");
    }
  }

  static void bad_json(std::string_view body, const JsonFault& fault, ErrorList& errors) {
    const std::string loc = fmt::format(R"("body",{})", count_chars(body.substr(0, fault.offset_bytes)));
    std::string ctx = R"({"error":)";
    render_json_string(fault.message, ctx);
    ctx += '}';
    errors.add({.type = "json_invalid", .loc = loc, .msg = "JSON decode error", .ctx = ctx}, "{}");
  }

  ParseLimits limits_;
  DirectPass direct_;
  od::parser parser_;
};

BatchParser::BatchParser(ParseLimits limits) : impl_(std::make_unique<Impl>(limits)) {}
BatchParser::~BatchParser() = default;
void BatchParser::set_limits(ParseLimits limits) {
  impl_->set_limits(limits);
}

bool BatchParser::parse(std::string_view body, bool json, WallMicros now, Batch& batch, std::string& arena,
                        Refusal& refusal) {
  return (json && (direct(body, now, batch, arena) || fast(body, now, batch, arena))) ||
         slow(body, json, now, batch, arena, refusal);
}

bool BatchParser::direct(std::string_view body, WallMicros now, Batch& batch, std::string& arena) {
  return impl_->direct(body, now, batch, arena);
}

bool BatchParser::fast(std::string_view body, WallMicros now, Batch& batch, std::string& arena) {
  return impl_->fast(body, now, batch, arena);
}

bool BatchParser::slow(std::string_view body, bool json, WallMicros now, Batch& batch, std::string& arena,
                       Refusal& refusal) {
  return impl_->slow(body, json, now, batch, arena, refusal);
}

}  // namespace kavach::http
