#include "http/ingest/validate.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "engine/bounds.h"
#include "engine/timestamp.h"
#include "http/ingest/pydantic_lax.h"
#include "http/ingest/python_json.h"
#include "http/ingest/utf8.h"

namespace kavach::http {
namespace {

constexpr std::string_view kTruncated = "... [truncated]";

// In the order of declaration.
enum class Field : std::uint8_t {
  kAgentName,
  kProvider,
  kModel,
  kInputTokens,
  kOutputTokens,
  kCost,
  kTimestamp,
  kDurationMs,
  kIdempotencyKey,
  kRunId,
  kPrompt,
  kStatus,
  kPartial,
};
constexpr std::size_t kFieldCount = 13;

struct FieldRule {
  std::string_view name;
  bool required = false;
  bool nullable = false;
  // Of texts, in characters.
  std::size_t chars_min = 0;
  std::size_t chars_max = static_cast<std::size_t>(-1);
};

constexpr std::array<FieldRule, kFieldCount> kRules = {{
    {.name = "agent_name", .required = true, .chars_min = 1, .chars_max = bounds::kNameCharsMax},
    {.name = "provider", .required = true, .chars_min = 1, .chars_max = bounds::kProviderCharsMax},
    {.name = "model", .required = true, .chars_min = 1, .chars_max = bounds::kNameCharsMax},
    {.name = "input_tokens", .required = true},
    {.name = "output_tokens", .required = true},
    {.name = "cost", .required = true},
    {.name = "timestamp", .required = true},
    {.name = "duration_ms"},
    {.name = "idempotency_key", .nullable = true, .chars_max = bounds::kNameCharsMax},
    {.name = "run_id", .nullable = true, .chars_max = bounds::kNameCharsMax},
    {.name = "prompt", .nullable = true},
    {.name = "status", .nullable = true},
    {.name = "partial"},
}};

constexpr ValidationError kNotAnObject = {
    .type = "model_attributes_type",
    .loc = {},
    .msg = "Input should be a valid dictionary or object to extract fields from",
    .ctx = {},
};

std::string_view plural(std::size_t count) {
  return count == 1 ? "" : "s";
}

// What is wrong with a number, in Pydantic's words. `ge` and `le` are the bounds as ctx prints them.
struct NumberWords {
  std::string_view type_prefix;
  std::string_view noun;
  std::string_view parsing;
  std::string_view ge;
  std::string_view le;
  std::string_view le_in_msg;
};

constexpr NumberWords kIntWords = {
    .type_prefix = "int",
    .noun = "integer",
    .parsing = "unable to parse string as an integer",
    .ge = "0",
    .le = "9223372036854775807",
    .le_in_msg = "9223372036854775807",
};
constexpr NumberWords kFloatWords = {
    .type_prefix = "float",
    .noun = "number",
    .parsing = "unable to parse string as a number",
    .ge = "0.0",
    .le = "9000000000.0",
    .le_in_msg = "9000000000",
};
constexpr NumberWords kBoolWords = {
    .type_prefix = "bool",
    .noun = "boolean",
    .parsing = "unable to interpret input",
    .ge = {},
    .le = {},
    .le_in_msg = {},
};

class Validator {
 public:
  Validator(const ParseLimits& limits, WallMicros now, Batch& batch, std::string& arena,
            ErrorList& errors) noexcept
      : limits_(limits), now_(now), batch_(batch), arena_(arena), errors_(errors) {}

  void body(std::string_view value) {
    loc_ = R"("body")";
    if (json_kind(value) != JsonKind::kObject) return add(kNotAnObject, value);
    std::optional<std::string_view> events;
    for_each_member(value, [&](std::string_view key, std::string_view member) {
      if (key == "events") events = member;
    });
    loc_ += R"(,"events")";
    if (!events) return missing(value);
    list(*events);
  }

 private:
  void list(std::string_view value) {
    if (json_kind(value) != JsonKind::kArray) {
      return add({.type = "list_type", .loc = {}, .msg = "Input should be a valid list", .ctx = {}}, value);
    }
    std::size_t count = 0;
    std::string_view item;
    for (JsonWalk walk(value); walk.next_item(item);) ++count;
    if (count == 0) return too_short();
    if (count > limits_.batch_events_max) return too_long(count);

    const std::size_t loc_size = loc_.size();
    std::size_t index = 0;
    for (JsonWalk walk(value); walk.next_item(item); ++index) {
      loc_.resize(loc_size);
      fmt::format_to(std::back_inserter(loc_), ",{}", index);
      event(item);
    }
  }

  void too_short() {
    errors_.add({.type = "too_short",
                 .loc = loc_,
                 .msg = "List should have at least 1 item after validation, not 0",
                 .ctx = R"({"field_type":"List","min_length":1,"actual_length":0})"},
                "[]");
  }

  void too_long(std::size_t count) {
    const std::uint32_t max = limits_.batch_events_max;
    const std::string msg =
        fmt::format("List should have at most {} item{} after validation, not {}", max, plural(max), count);
    const std::string ctx =
        fmt::format(R"({{"field_type":"List","max_length":{},"actual_length":{}}})", max, count);
    errors_.add({.type = "too_long", .loc = loc_, .msg = msg, .ctx = ctx}, "[]");
  }

  void event(std::string_view value) {
    if (json_kind(value) != JsonKind::kObject) return add(kNotAnObject, value);
    std::array<std::string_view, kFieldCount> sent{};  // the last value of each field; empty: not sent
    for_each_member(value, [&](std::string_view key, std::string_view member) {
      const auto* const rule =
          std::find_if(kRules.begin(), kRules.end(), [&](auto& r) { return r.name == key; });
      if (rule != kRules.end()) sent[static_cast<std::size_t>(rule - kRules.begin())] = member;
    });

    Event parsed;
    const std::size_t loc_size = loc_.size();
    for (std::size_t i = 0; i < kFieldCount; ++i) {
      loc_.resize(loc_size);
      ((loc_ += R"(,")") += kRules[i].name) += '"';
      if (!sent[i].empty()) {
        field(static_cast<Field>(i), kRules[i], sent[i], parsed);
      } else if (kRules[i].required) {
        missing(value);
      }
    }
    // An event that is not complete is never looked at: any error refuses the whole batch.
    batch_.events.push_back(parsed);
  }

  void field(Field name, const FieldRule& rule, std::string_view value, Event& event) {
    if (rule.nullable && json_kind(value) == JsonKind::kNull) return;
    switch (name) {
      case Field::kAgentName:
        return text(rule, value, event.agent_name);
      case Field::kProvider:
        return text(rule, value, event.provider);
      case Field::kModel:
        return text(rule, value, event.model);
      case Field::kInputTokens:
        return number(kIntWords, value, lax_int(value), event.input_tokens);
      case Field::kOutputTokens:
        return number(kIntWords, value, lax_int(value), event.output_tokens);
      case Field::kCost:
        return number(kFloatWords, value, lax_cost(value), event.cost);
      case Field::kTimestamp:
        return timestamp(value, event.timestamp);
      case Field::kDurationMs:
        return number(kIntWords, value, lax_int(value), event.duration_ms);
      case Field::kIdempotencyKey:
        return text(rule, value, event.idempotency_key);
      case Field::kRunId:
        return text(rule, value, event.run_id);
      case Field::kPrompt:
        text(rule, value, event.prompt);
        event.prompt = cut_prompt(event.prompt, arena_);
        return;
      case Field::kStatus:
        return status(value, event.is_error);
      case Field::kPartial:
        return number(kBoolWords, value, lax_bool(value), event.partial);
    }
  }

  void text(const FieldRule& rule, std::string_view value, std::string_view& out) {
    if (json_kind(value) != JsonKind::kString) return not_a_string(value);
    const std::string_view chars = decode_string(value, arena_);
    if (has_surrogate(chars)) return not_unicode(value);
    const std::size_t count = count_chars(chars);
    if (count < rule.chars_min)
      return wrong_size("string_too_short", "at least", "min_length", rule.chars_min, value);
    if (count > rule.chars_max)
      return wrong_size("string_too_long", "at most", "max_length", rule.chars_max, value);
    out = chars;
  }

  void wrong_size(std::string_view type, std::string_view bound, std::string_view ctx_key, std::size_t limit,
                  std::string_view value) {
    const std::string msg = fmt::format("String should have {} {} character{}", bound, limit, plural(limit));
    const std::string ctx = fmt::format(R"({{"{}":{}}})", ctx_key, limit);
    add({.type = type, .loc = {}, .msg = msg, .ctx = ctx}, value);
  }

  template <typename T>
  void number(const NumberWords& words, std::string_view value, const Lax<T>& parsed, T& out) {
    if (parsed) {
      out = *parsed;
      return;
    }
    std::string type;
    std::string msg;
    std::string ctx;
    switch (parsed.error()) {
      case LaxFault::kType:
        type = fmt::format("{}_type", words.type_prefix);
        msg = fmt::format("Input should be a valid {}", words.noun);
        break;
      case LaxFault::kParsing:
        type = fmt::format("{}_parsing", words.type_prefix);
        msg = fmt::format("Input should be a valid {}, {}", words.noun, words.parsing);
        break;
      case LaxFault::kFraction:
        type = "int_from_float";
        msg = "Input should be a valid integer, got a number with a fractional part";
        break;
      case LaxFault::kParsingSize:
        type = "int_parsing_size";
        msg = "Unable to parse input string as an integer, exceeded maximum size";
        break;
      case LaxFault::kNotFinite:
        type = "finite_number";
        msg = "Input should be a finite number";
        break;
      case LaxFault::kUnicode:
        return not_unicode(value);
      case LaxFault::kNegative:
        type = "greater_than_equal";
        msg = "Input should be greater than or equal to 0";
        ctx = fmt::format(R"({{"ge":{}}})", words.ge);
        break;
      case LaxFault::kTooLarge:
        type = "less_than_equal";
        msg = fmt::format("Input should be less than or equal to {}", words.le_in_msg);
        ctx = fmt::format(R"({{"le":{}}})", words.le);
        break;
    }
    add({.type = type, .loc = {}, .msg = msg, .ctx = ctx}, value);
  }

  void timestamp(std::string_view value, WallMicros& out) {
    if (json_kind(value) != JsonKind::kString) return not_a_string(value);
    const auto parsed = parse_timestamp(decode_string(value, arena_));
    if (!parsed) {
      return add({.type = "value_error",
                  .loc = {},
                  .msg = "Value error, Invalid timestamp format. Use ISO 8601.",
                  .ctx = R"({"error":{}})"},
                 value);
    }
    out = std::min(*parsed, now_);
  }

  void status(std::string_view value, bool& is_error) {
    const bool is_text = json_kind(value) == JsonKind::kString;
    const std::string_view chars = is_text ? decode_string(value, arena_) : std::string_view();
    if (has_surrogate(chars)) return not_unicode(value);
    is_error = chars == "error";
    if (is_error || chars == "success") return;
    add({.type = "literal_error",
         .loc = {},
         .msg = "Input should be 'success' or 'error'",
         .ctx = R"({"expected":"'success' or 'error'"})"},
        value);
  }

  void not_a_string(std::string_view value) {
    add({.type = "string_type", .loc = {}, .msg = "Input should be a valid string", .ctx = {}}, value);
  }

  void not_unicode(std::string_view value) {
    add({.type = "string_unicode",
         .loc = {},
         .msg = "Input should be a valid string, unable to parse raw data as a unicode string",
         .ctx = {}},
        value);
  }

  void missing(std::string_view parent) {
    add({.type = "missing", .loc = {}, .msg = "Field required", .ctx = {}}, parent);
  }

  // At the present place, echoing `value`.
  void add(ValidationError error, std::string_view value) {
    error.loc = loc_;
    errors_.add_echo(error, value);
  }

  // A key may be written with escapes, so it is decoded before it is compared.
  template <typename Visit>
  void for_each_member(std::string_view object, Visit visit) {
    JsonWalk walk(object);
    std::string_view key;
    std::string_view value;
    while (walk.next_member(key, value)) {
      key_scratch_.clear();
      visit(decode_string(key, key_scratch_), value);
    }
  }

  const ParseLimits& limits_;
  const WallMicros now_;
  Batch& batch_;
  std::string& arena_;
  ErrorList& errors_;
  std::string loc_;
  std::string key_scratch_;
};

}  // namespace

void validate_batch(std::string_view document, const ParseLimits& limits, WallMicros now, Batch& batch,
                    std::string& arena, ErrorList& errors) {
  batch.events.clear();
  Validator(limits, now, batch, arena, errors).body(root_value(document));
}

std::string_view cut_prompt(std::string_view prompt, std::string& arena) {
  if (prompt.size() <= bounds::kPromptCharsMax) return prompt;
  if (prefix_chars(prompt, bounds::kPromptCharsMax).size() == prompt.size()) return prompt;
  const std::size_t start = arena.size();
  arena += prefix_chars(prompt, bounds::kPromptCharsMax - kTruncated.size());
  arena += kTruncated;
  return std::string_view(arena).substr(start);
}

}  // namespace kavach::http
