#include "http/control/json_out.h"

#include <fmt/format.h>

#include <cmath>

#include "engine/timestamp.h"
#include "http/ingest/python_json.h"

namespace kavach::http {

// Before a value or a name that follows another.
void JsonOut::separate() {
  if (out_.empty()) return;
  const char last = out_.back();
  if (last != '{' && last != '[' && last != ':') out_ += ',';
}

JsonOut& JsonOut::begin() {
  separate();
  out_ += '{';
  return *this;
}

JsonOut& JsonOut::end() {
  out_ += '}';
  return *this;
}

JsonOut& JsonOut::begin_list() {
  separate();
  out_ += '[';
  return *this;
}

JsonOut& JsonOut::end_list() {
  out_ += ']';
  return *this;
}

JsonOut& JsonOut::key(std::string_view name) {
  separate();
  (out_ += '"') += name;
  out_ += "\":";
  return *this;
}

JsonOut& JsonOut::text(std::string_view value) {
  separate();
  render_json_string(value, out_);
  return *this;
}

JsonOut& JsonOut::integer(std::int64_t value) {
  return raw(fmt::format_int(value).str());
}

JsonOut& JsonOut::number(double value) {
  return std::isfinite(value) ? raw(fmt::format("{}", value)) : null();
}

JsonOut& JsonOut::flag(bool value) {
  return raw(value ? "true" : "false");
}

JsonOut& JsonOut::null() {
  return raw("null");
}

JsonOut& JsonOut::usd(NanoDollars value) {
  const bool negative = value < 0;
  const auto nano = static_cast<std::uint64_t>(negative ? -value : value);
  std::string text =
      fmt::format("{}{}.{:09}", negative ? "-" : "", nano / kNanoPerDollar, nano % kNanoPerDollar);
  while (text.back() == '0' && text[text.size() - 2] != '.') text.pop_back();
  return raw(text);
}

JsonOut& JsonOut::time(WallMicros value) {
  return text(format_timestamp(value));
}

JsonOut& JsonOut::raw(std::string_view json) {
  separate();
  out_ += json;
  return *this;
}

}  // namespace kavach::http
