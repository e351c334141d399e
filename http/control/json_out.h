// JsonOut: an answer's JSON, member by member, with the commas in their places.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "engine/clock.h"
#include "engine/money.h"

namespace kavach::http {

class JsonOut {
 public:
  JsonOut& begin();  // an object, as a value or an item
  JsonOut& end();
  JsonOut& begin_list();
  JsonOut& end_list();
  JsonOut& key(std::string_view name);

  JsonOut& text(std::string_view value);
  JsonOut& integer(std::int64_t value);
  JsonOut& number(double value);  // the shortest text that reads back to it
  JsonOut& flag(bool value);
  JsonOut& null();
  JsonOut& usd(NanoDollars value);      // exact
  JsonOut& time(WallMicros value);      // ISO 8601
  JsonOut& raw(std::string_view json);  // rendered already

  // A member each.
  JsonOut& text(std::string_view name, std::string_view value) { return key(name).text(value); }
  JsonOut& integer(std::string_view name, std::int64_t value) { return key(name).integer(value); }
  JsonOut& number(std::string_view name, double value) { return key(name).number(value); }
  JsonOut& flag(std::string_view name, bool value) { return key(name).flag(value); }
  JsonOut& null(std::string_view name) { return key(name).null(); }
  JsonOut& usd(std::string_view name, NanoDollars value) { return key(name).usd(value); }
  JsonOut& time(std::string_view name, std::optional<WallMicros> value) {
    return value ? key(name).time(*value) : key(name).null();
  }
  // Absent or empty: null.
  JsonOut& text_or_null(std::string_view name, std::string_view value) {
    return value.empty() ? null(name) : text(name, value);
  }

  std::string take() { return std::exchange(out_, {}); }

 private:
  void separate();
  std::string out_;
};

}  // namespace kavach::http
