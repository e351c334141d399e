// Python's json module, as far as an error body shows it: json.loads' grammar, messages and offsets, and
// json.dumps' rendering (Starlette's: separators "," and ":", ensure_ascii=False).
//
// check() decides once whether a text is JSON; everything else walks text that has passed it, so it has no
// errors of its own. No tree is built: a hostile body costs its own bytes and one bit per level of nesting.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kavach::http {

// Why a text is not taken.
struct JsonFault {
  // json.JSONDecodeError's msg; nullptr when json.loads fails without one: nested deeper than
  // bounds::kJsonDepthMax, or an integer of more than 4300 digits (both raise another exception).
  const char* message = nullptr;
  std::size_t offset_bytes = 0;
};

// Linear in the text. Unlike json.loads it refuses NaN, Infinity and -Infinity ("Expecting value").
// REQUIRES: is_utf8(text, Surrogates::kAllow).
std::optional<JsonFault> check_json(std::string_view text) noexcept;

// Whether the whole text is a number of the JSON grammar that json.loads takes.
bool is_json_number(std::string_view text) noexcept;

// Everything below REQUIRES text that check_json() has passed; a value or token is without whitespace around
// it.

enum class JsonKind : std::uint8_t { kNull, kBool, kInt, kFloat, kString, kArray, kObject };

JsonKind json_kind(std::string_view value) noexcept;

// The one value of the whole document.
std::string_view root_value(std::string_view text) noexcept;

// The elements of an array, or the members of an object as they are written: duplicates are not removed.
class JsonWalk {
 public:
  explicit JsonWalk(std::string_view container) noexcept;  // REQUIRES: an array or an object
  bool next_item(std::string_view& value) noexcept;
  bool next_member(std::string_view& key, std::string_view& value) noexcept;  // `key` is a string token

 private:
  const char* p_;
  const char* end_;
};

// The characters of a string token. A view into the token when it has no escape, else appended to `arena`
// (which must have the token's size of room left if earlier views into it shall stay valid). Lone surrogates
// come out in their three-byte form.
std::string_view decode_string(std::string_view token, std::string& arena);

// What json.dumps(json.loads(value)) renders: of duplicate members the last value at the first one's place,
// floats as repr() shows them. A float that overflowed (1e400) is rendered as it was written, a lone
// surrogate as an escape.
void render_json(std::string_view value, std::string& out);
// A string of characters (not a token), quoted.
void render_json_string(std::string_view chars, std::string& out);

// A JSON number's double; infinite when it overflows.
double to_double(std::string_view number) noexcept;

}  // namespace kavach::http
