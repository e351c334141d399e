#include "http/ingest/validate.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "engine/bounds.h"
#include "http/ingest/checks.h"
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
  TextRule text = {};
};

constexpr std::array<FieldRule, kFieldCount> kRules = {{
    {.name = "agent_name", .required = true, .text = {.chars_min = 1, .chars_max = bounds::kNameCharsMax}},
    {.name = "provider", .required = true, .text = {.chars_min = 1, .chars_max = bounds::kProviderCharsMax}},
    {.name = "model", .required = true, .text = {.chars_min = 1, .chars_max = bounds::kNameCharsMax}},
    {.name = "input_tokens", .required = true},
    {.name = "output_tokens", .required = true},
    {.name = "cost", .required = true},
    {.name = "timestamp", .required = true},
    {.name = "duration_ms"},
    {.name = "idempotency_key", .nullable = true, .text = {.chars_max = bounds::kNameCharsMax}},
    {.name = "run_id", .nullable = true, .text = {.chars_max = bounds::kNameCharsMax}},
    {.name = "prompt", .nullable = true},
    {.name = "status", .nullable = true},
    {.name = "partial"},
}};

std::string_view plural(std::size_t count) {
  return count == 1 ? "" : "s";
}

constexpr std::array<std::string_view, 2> kStatuses = {"success", "error"};

class Validator {
 public:
  Validator(const ParseLimits& limits, WallMicros now, Batch& batch, std::string& arena,
            ErrorList& errors) noexcept
      : limits_(limits), now_(now), batch_(batch), arena_(arena), errors_(errors), checks_(arena, errors) {}

  void body(std::string_view value) {
    checks_.enter("body");
    if (!checks_.object(value)) return;
    std::optional<std::string_view> events;
    checks_.for_each_member(value, [&](std::string_view key, std::string_view member) {
      if (key == "events") events = member;
    });
    checks_.enter("events");
    if (events) {
      list(*events);
    } else {
      checks_.missing(value);
    }
  }

 private:
  void list(std::string_view value) {
    if (!checks_.list(value)) return;
    std::size_t count = 0;
    std::string_view item;
    for (JsonWalk walk(value); walk.next_item(item);) ++count;
    if (count == 0) return too_short();
    if (count > limits_.batch_events_max) return too_long(count);

    const std::size_t loc_size = checks_.loc.size();
    std::size_t index = 0;
    for (JsonWalk walk(value); walk.next_item(item); ++index) {
      checks_.loc.resize(loc_size);
      checks_.enter(index);
      event(item);
    }
  }

  void too_short() {
    errors_.add({.type = "too_short",
                 .loc = checks_.loc,
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
    errors_.add({.type = "too_long", .loc = checks_.loc, .msg = msg, .ctx = ctx}, "[]");
  }

  void event(std::string_view value) {
    if (!checks_.object(value)) return;
    std::array<std::string_view, kFieldCount> sent{};  // the last value of each field; empty: not sent
    checks_.for_each_member(value, [&](std::string_view key, std::string_view member) {
      const auto* const rule =
          std::find_if(kRules.begin(), kRules.end(), [&](auto& r) { return r.name == key; });
      if (rule != kRules.end()) sent[static_cast<std::size_t>(rule - kRules.begin())] = member;
    });

    Event parsed;
    const std::size_t loc_size = checks_.loc.size();
    for (std::size_t i = 0; i < kFieldCount; ++i) {
      checks_.loc.resize(loc_size);
      checks_.enter(kRules[i].name);
      if (!sent[i].empty()) {
        field(static_cast<Field>(i), kRules[i], sent[i], parsed);
      } else if (kRules[i].required) {
        checks_.missing(value);
      }
    }
    // An event that is not complete is never looked at: any error refuses the whole batch.
    batch_.events.push_back(parsed);
  }

  void field(Field name, const FieldRule& rule, std::string_view value, Event& event) {
    if (rule.nullable && json_kind(value) == JsonKind::kNull) return;
    switch (name) {
      case Field::kAgentName:
        checks_.text(value, rule.text, event.agent_name);
        return;
      case Field::kProvider:
        checks_.text(value, rule.text, event.provider);
        return;
      case Field::kModel:
        checks_.text(value, rule.text, event.model);
        return;
      case Field::kInputTokens:
        checks_.number(kIntWords, value, lax_int(value), event.input_tokens);
        return;
      case Field::kOutputTokens:
        checks_.number(kIntWords, value, lax_int(value), event.output_tokens);
        return;
      case Field::kCost:
        checks_.number(kFloatWords, value, lax_cost(value), event.cost);
        return;
      case Field::kTimestamp:
        checks_.timestamp(value, event.timestamp);
        event.timestamp = std::min(event.timestamp, now_);
        return;
      case Field::kDurationMs:
        checks_.number(kIntWords, value, lax_int(value), event.duration_ms);
        return;
      case Field::kIdempotencyKey:
        checks_.text(value, rule.text, event.idempotency_key);
        return;
      case Field::kRunId:
        checks_.text(value, rule.text, event.run_id);
        return;
      case Field::kPrompt:
        checks_.text(value, rule.text, event.prompt);
        event.prompt = cut_prompt(event.prompt, arena_);
        return;
      case Field::kStatus: {
        std::size_t status = 0;
        checks_.choice(value, kStatuses, status);
        event.is_error = status == 1;
        return;
      }
      case Field::kPartial:
        checks_.number(kBoolWords, value, lax_bool(value), event.partial);
        return;
    }
  }

  const ParseLimits& limits_;
  const WallMicros now_;
  Batch& batch_;
  std::string& arena_;
  ErrorList& errors_;
  Checks checks_;
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
