#include "http/control/schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/bounds.h"
#include "http/ingest/utf8.h"
#include "http/outbound/percent_code.h"

namespace kavach::http {
namespace {

// Python's repr() of a float that is a bound: 0.0, 1.0, 90.
std::string bound_text(double bound, FieldKind kind) {
  const bool is_whole = std::floor(bound) == bound;
  if (kind == FieldKind::kInteger) return fmt::format("{}", static_cast<std::int64_t>(bound));
  return is_whole ? fmt::format("{:.1f}", bound) : fmt::format("{}", bound);
}

// email-validator's sentence about what is wrong with an address; nullptr: nothing.
const char* email_fault(std::string_view address) noexcept {
  const std::size_t at = address.rfind('@');
  if (at == std::string_view::npos) return "An email address must have an @-sign.";
  const std::string_view local = address.substr(0, at);
  const std::string_view domain = address.substr(at + 1);
  if (local.empty()) return "There must be something before the @-sign.";
  if (domain.empty()) return "There must be something after the @-sign.";
  const auto is_local = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           static_cast<unsigned char>(c) >= 0x80 ||
           std::string_view(".!#$%&'*+/=?^_`{|}~-").find(c) != std::string_view::npos;
  };
  if (!std::all_of(local.begin(), local.end(), is_local) || local.size() > 64)
    return "The email address contains invalid characters before the @-sign.";
  if (local.starts_with('.') || local.ends_with('.') || local.find("..") != std::string_view::npos)
    return "An email address cannot have a period at its begin or end, or two in a row, before the @-sign.";
  const auto is_domain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || static_cast<unsigned char>(c) >= 0x80;
  };
  if (!std::all_of(domain.begin(), domain.end(), is_domain) || domain.size() > 253)
    return "The part after the @-sign contains invalid characters.";
  if (domain.find('.') == std::string_view::npos)
    return "The part after the @-sign is not valid. It should have a period.";
  if (domain.starts_with('.') || domain.ends_with('.') || domain.find("..") != std::string_view::npos)
    return "An email address cannot have a period immediately after the @-sign, at its end, or two in a row.";
  return nullptr;
}

}  // namespace

std::string decode_query(std::string_view text) {
  return percent_decode(text, true);
}

std::string decode_path(std::string_view text) {
  return percent_decode(text);
}

// --- Form --------------------------------------------------------------------------------------------------

const Form::Value* Form::find(std::string_view name) const noexcept {
  const auto found =
      std::find_if(values_.begin(), values_.end(), [&](const auto& value) { return value.first == name; });
  return found == values_.end() ? nullptr : &found->second;
}

// --- FormReader --------------------------------------------------------------------------------------------

void FormReader::read_body(const Schema& schema, std::string_view raw, bool json, Form& form) {
  if (raw.empty()) {
    errors_.add({.type = "missing", .loc = R"("body")", .msg = "Field required", .ctx = {}}, "null");
    return;
  }
  if (!is_utf8(raw, Surrogates::kAllow)) {
    errors_.add({.type = "json_invalid",
                 .loc = R"("body",0)",
                 .msg = "JSON decode error",
                 .ctx = R"({"error":"Expecting value"})"},
                "{}");
    return;
  }
  if (!json) {
    errors_.add_echo_text({.type = "model_attributes_type",
                           .loc = R"("body")",
                           .msg = "Input should be a valid dictionary or object to extract fields from",
                           .ctx = {}},
                          has_surrogate(raw) ? std::string_view() : raw);
    return;
  }
  if (const auto fault = check_json(raw)) {
    const std::string loc = fmt::format(R"("body",{})", count_chars(raw.substr(0, fault->offset_bytes)));
    std::string ctx = R"({"error":)";
    render_json_string(fault->message != nullptr ? fault->message : "Expecting value", ctx);
    ctx += '}';
    errors_.add({.type = "json_invalid", .loc = loc, .msg = "JSON decode error", .ctx = ctx}, "{}");
    return;
  }
  checks_.loc.clear();
  checks_.enter("body");
  read_object(schema, root_value(raw), form);
}

void FormReader::read_query(const Schema& schema, std::string_view query, Form& form) {
  std::vector<std::pair<std::string, std::string>> sent;
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
    const std::size_t equals = pair.find('=');
    std::string value =
        equals == std::string_view::npos ? std::string() : decode_query(pair.substr(equals + 1));
    if (!is_utf8(value, Surrogates::kRefuse)) value = "\xef\xbf\xbd";
    if (!pair.empty()) sent.emplace_back(decode_query(pair.substr(0, equals)), std::move(value));
  }
  for (const Field& field : schema.fields) {
    const auto found = std::find_if(sent.rbegin(), sent.rend(),
                                    [&](const auto& parameter) { return parameter.first == field.name; });
    checks_.loc = R"("query")";
    checks_.enter(field.name);
    if (found == sent.rend()) {
      set_presets(field, form);
      if (field.required) checks_.missing("null");
      continue;
    }
    // As the JSON string that Pydantic's lax mode would see.
    std::string token;
    render_json_string(found->second, token);
    read_field(field, token, form);
  }
}

void FormReader::refuse(std::string_view where, std::string_view name, std::string_view text,
                        std::string_view value) {
  std::string token;
  render_json_string(value, token);
  checks_.loc.clear();
  checks_.enter(where);
  checks_.enter(name);
  checks_.value_error(text, token);
}

void FormReader::read_object(const Schema& schema, std::string_view value, Form& form) {
  if (!checks_.object(value)) return;
  std::vector<std::string_view> sent(schema.fields.size());  // the last value of each field; empty: not sent
  checks_.for_each_member(value, [&](std::string_view key, std::string_view member) {
    const auto field = std::find_if(schema.fields.begin(), schema.fields.end(),
                                    [&](const Field& known) { return known.name == key; });
    if (field != schema.fields.end()) sent[static_cast<std::size_t>(field - schema.fields.begin())] = member;
  });
  const std::size_t place = checks_.loc.size();
  for (std::size_t i = 0; i < schema.fields.size(); ++i) {
    const Field& field = schema.fields[i];
    checks_.loc.resize(place);
    checks_.enter(field.name);
    if (!sent[i].empty()) {
      read_field(field, sent[i], form);
      continue;
    }
    set_presets(field, form);
    if (field.required) checks_.missing(value);
  }
  checks_.loc.resize(place);
}

void FormReader::set_presets(const Field& field, Form& form) {
  if (field.preset.empty()) return;
  // Presets are the program's own, and right.
  const std::string place = checks_.loc;
  read_field(field, field.preset, form);
  checks_.loc = place;
}

void FormReader::read_field(const Field& field, std::string_view value, Form& form) {
  if (field.nullable && json_kind(value) == JsonKind::kNull) return;
  arena_.clear();  // of the field before
  const auto put = [&](Form::Value read) { form.values_.emplace_back(field.name, std::move(read)); };
  switch (field.kind) {
    case FieldKind::kText: {
      std::string_view text;
      if (checks_.text(value, field.text, text)) put(std::string(text));
      return;
    }
    case FieldKind::kEmail:
      return read_email(field, value, form);
    case FieldKind::kInteger:
    case FieldKind::kNumber:
      return read_number(field, value, form);
    case FieldKind::kFlag: {
      bool flag = false;
      if (checks_.number(kBoolWords, value, lax_bool(value), flag)) put(flag);
      return;
    }
    case FieldKind::kChoice: {
      std::size_t choice = 0;
      if (checks_.choice(value, field.choices, choice)) put(std::string(field.choices[choice]));
      return;
    }
    case FieldKind::kTimestamp: {
      WallMicros at = 0;
      if (checks_.timestamp(value, at)) put(at);
      return;
    }
    case FieldKind::kObject: {
      std::vector<Form> one(1);
      read_object(*field.item, value, one.front());
      return put(std::move(one));
    }
    case FieldKind::kList: {
      if (!checks_.list(value)) return;
      std::vector<Form> items;
      const std::size_t place = checks_.loc.size();
      std::string_view item;
      for (JsonWalk walk(value); walk.next_item(item);) {
        checks_.loc.resize(place);
        checks_.enter(items.size());
        read_object(*field.item, item, items.emplace_back());
      }
      return put(std::move(items));
    }
    case FieldKind::kTexts:
      return;  // of answers
  }
}

void FormReader::read_number(const Field& field, std::string_view value, Form& form) {
  if (field.kind == FieldKind::kInteger) {
    std::int64_t number = 0;
    const auto parsed = lax_int(value);
    // Of a negative number only that is known; every bound of ours is above it.
    if (!parsed && parsed.error() == LaxFault::kNegative) {
      in_bounds(field, -1, value);
      return;
    }
    if (checks_.number(kIntWords, value, parsed, number) &&
        in_bounds(field, static_cast<double>(number), value)) {
      form.values_.emplace_back(field.name, number);
    }
    return;
  }
  double number = 0;
  if (checks_.number(kFloatWords, value, lax_float(value), number) && in_bounds(field, number, value)) {
    form.values_.emplace_back(field.name, number);
  }
}

bool FormReader::in_bounds(const Field& field, double number, std::string_view value) {
  const auto outside = [&](std::string_view type, std::string_view words, std::string_view key,
                           double bound) {
    const std::string text = bound_text(bound, field.kind);
    std::string_view in_msg = text;
    if (in_msg.ends_with(".0")) in_msg.remove_suffix(2);
    return checks_.add({.type = type,
                        .loc = {},
                        .msg = fmt::format("Input should be {} {}", words, in_msg),
                        .ctx = fmt::format(R"({{"{}":{}}})", key, text)},
                       value);
  };
  if (field.greater_than && !(number > *field.greater_than))
    return outside("greater_than", "greater than", "gt", *field.greater_than);
  if (field.at_least && !(number >= *field.at_least))
    return outside("greater_than_equal", "greater than or equal to", "ge", *field.at_least);
  if (field.at_most && !(number <= *field.at_most))
    return outside("less_than_equal", "less than or equal to", "le", *field.at_most);
  return true;
}

void FormReader::read_email(const Field& field, std::string_view value, Form& form) {
  std::string_view address;
  if (!checks_.text(value, {.chars_min = 0, .chars_max = 254}, address)) return;
  if (const char* const fault = email_fault(address); fault != nullptr) {
    checks_.add({.type = "value_error",
                 .loc = {},
                 .msg = fmt::format("value is not a valid email address: {}", fault),
                 .ctx = fmt::format(R"({{"reason":"{}"}})", fault)},
                value);
    return;
  }
  std::string lower(address);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  form.values_.emplace_back(field.name, std::move(lower));
}

}  // namespace kavach::http
