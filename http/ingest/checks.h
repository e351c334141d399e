// Checks: one JSON value at a time, as Pydantic v2 checks it in lax mode; what is wrong goes to an ErrorList
// in Pydantic's words (contract/agentkavach.md section 9).
//
// Shared by the events of an ingest body and by the bodies and parameters of the control API.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "engine/clock.h"
#include "http/ingest/error_list.h"
#include "http/ingest/pydantic_lax.h"
#include "http/ingest/python_json.h"

namespace kavach::http {

// In characters.
struct TextRule {
  std::size_t chars_min = 0;
  std::size_t chars_max = std::numeric_limits<std::size_t>::max();
};

// How Pydantic names a type's faults. `ge` and `le` are its bounds as ctx prints them.
struct NumberWords {
  std::string_view type_prefix;
  std::string_view noun;
  std::string_view parsing;
  std::string_view ge;
  std::string_view le;
  std::string_view le_in_msg;
};
inline constexpr NumberWords kIntWords = {
    .type_prefix = "int",
    .noun = "integer",
    .parsing = "unable to parse string as an integer",
    .ge = "0",
    .le = "9223372036854775807",
    .le_in_msg = "9223372036854775807",
};
inline constexpr NumberWords kFloatWords = {
    .type_prefix = "float",
    .noun = "number",
    .parsing = "unable to parse string as a number",
    .ge = "0.0",
    .le = "9000000000.0",
    .le_in_msg = "9000000000",
};
inline constexpr NumberWords kBoolWords = {
    .type_prefix = "bool",
    .noun = "boolean",
    .parsing = "unable to interpret input",
    .ge = {},
    .le = {},
    .le_in_msg = {},
};

// `value` and `parent` are checked JSON values (python_json.h). Each check is false when the value is not
// taken; then the errors have one more, at `loc`, and `out` is as it was.
class Checks {
 public:
  // Texts with escapes are decoded into `arena`, which must have room for them if earlier views shall stay
  // valid.
  Checks(std::string& arena, ErrorList& errors) noexcept : arena_(arena), errors_(errors) {}

  // The place that is being checked: rendered elements, without the brackets.
  std::string loc;
  void enter(std::string_view name);  // appends an element
  void enter(std::size_t index);

  bool text(std::string_view value, const TextRule& rule, std::string_view& out);
  template <typename T>
  bool number(const NumberWords& words, std::string_view value, const Lax<T>& parsed, T& out) {
    if (!parsed) return number_fault(words, value, parsed.error());
    out = *parsed;
    return true;
  }
  bool timestamp(std::string_view value, WallMicros& out);
  // A text that is one of `words`; `out` is its position.
  bool choice(std::string_view value, std::span<const std::string_view> words, std::size_t& out);
  bool object(std::string_view value);
  bool list(std::string_view value);

  // Always false.
  bool missing(std::string_view parent);
  // A check of one's own: `Value error, <text>`.
  bool value_error(std::string_view text, std::string_view value);
  bool add(ValidationError error, std::string_view value);

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

 private:
  bool number_fault(const NumberWords& words, std::string_view value, LaxFault fault);
  bool wrong_size(std::string_view type, std::string_view bound, std::string_view ctx_key, std::size_t limit,
                  std::string_view value);
  bool not_a_string(std::string_view value);
  bool not_unicode(std::string_view value);

  std::string& arena_;
  ErrorList& errors_;
  std::string key_scratch_;
};

// "'a', 'b' or 'c'", as Pydantic lists what it expects.
std::string one_of(std::span<const std::string_view> words);

}  // namespace kavach::http
