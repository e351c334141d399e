#include "http/ingest/checks.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/timestamp.h"
#include "http/ingest/utf8.h"

namespace kavach::http {
namespace {

std::string_view plural(std::size_t count) {
  return count == 1 ? "" : "s";
}

}  // namespace

void Checks::enter(std::string_view name) {
  (loc += loc.empty() ? "\"" : ",\"") += name;
  loc += '"';
}

void Checks::enter(std::size_t index) {
  fmt::format_to(std::back_inserter(loc), ",{}", index);
}

bool Checks::text(std::string_view value, const TextRule& rule, std::string_view& out) {
  if (json_kind(value) != JsonKind::kString) return not_a_string(value);
  const std::string_view chars = decode_string(value, arena_);
  if (has_surrogate(chars)) return not_unicode(value);
  const std::size_t count = count_chars(chars);
  if (count < rule.chars_min)
    return wrong_size("string_too_short", "at least", "min_length", rule.chars_min, value);
  if (count > rule.chars_max)
    return wrong_size("string_too_long", "at most", "max_length", rule.chars_max, value);
  out = chars;
  return true;
}

bool Checks::wrong_size(std::string_view type, std::string_view bound, std::string_view ctx_key,
                        std::size_t limit, std::string_view value) {
  const std::string msg = fmt::format("String should have {} {} character{}", bound, limit, plural(limit));
  const std::string ctx = fmt::format(R"({{"{}":{}}})", ctx_key, limit);
  return add({.type = type, .loc = {}, .msg = msg, .ctx = ctx}, value);
}

bool Checks::number_fault(const NumberWords& words, std::string_view value, LaxFault fault) {
  std::string type;
  std::string msg;
  std::string ctx;
  switch (fault) {
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
  return add({.type = type, .loc = {}, .msg = msg, .ctx = ctx}, value);
}

bool Checks::timestamp(std::string_view value, WallMicros& out) {
  if (json_kind(value) != JsonKind::kString) return not_a_string(value);
  const auto parsed = parse_timestamp(decode_string(value, arena_));
  if (!parsed) return value_error("Invalid timestamp format. Use ISO 8601.", value);
  out = *parsed;
  return true;
}

bool Checks::choice(std::string_view value, std::span<const std::string_view> words, std::size_t& out) {
  const bool is_text = json_kind(value) == JsonKind::kString;
  const std::string_view chars = is_text ? decode_string(value, arena_) : std::string_view();
  if (has_surrogate(chars)) return not_unicode(value);
  const auto found = is_text ? std::find(words.begin(), words.end(), chars) : words.end();
  if (found != words.end()) {
    out = static_cast<std::size_t>(found - words.begin());
    return true;
  }
  const std::string expected = one_of(words);
  return add({.type = "literal_error",
              .loc = {},
              .msg = "Input should be " + expected,
              .ctx = fmt::format(R"({{"expected":"{}"}})", expected)},
             value);
}

bool Checks::object(std::string_view value) {
  if (json_kind(value) == JsonKind::kObject) return true;
  return add({.type = "model_attributes_type",
              .loc = {},
              .msg = "Input should be a valid dictionary or object to extract fields from",
              .ctx = {}},
             value);
}

bool Checks::list(std::string_view value) {
  if (json_kind(value) == JsonKind::kArray) return true;
  return add({.type = "list_type", .loc = {}, .msg = "Input should be a valid list", .ctx = {}}, value);
}

bool Checks::not_a_string(std::string_view value) {
  return add({.type = "string_type", .loc = {}, .msg = "Input should be a valid string", .ctx = {}}, value);
}

bool Checks::not_unicode(std::string_view value) {
  return add({.type = "string_unicode",
              .loc = {},
              .msg = "Input should be a valid string, unable to parse raw data as a unicode string",
              .ctx = {}},
             value);
}

bool Checks::missing(std::string_view parent) {
  return add({.type = "missing", .loc = {}, .msg = "Field required", .ctx = {}}, parent);
}

bool Checks::value_error(std::string_view text, std::string_view value) {
  const std::string msg = fmt::format("Value error, {}", text);
  return add({.type = "value_error", .loc = {}, .msg = msg, .ctx = R"({"error":{}})"}, value);
}

bool Checks::add(ValidationError error, std::string_view value) {
  error.loc = loc;
  errors_.add_echo(error, value);
  return false;
}

std::string one_of(std::span<const std::string_view> words) {
  std::string listed;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (i > 0) listed += i + 1 == words.size() ? " or " : ", ";
    (listed += '\'') += words[i];
    listed += '\'';
  }
  return listed;
}

}  // namespace kavach::http
