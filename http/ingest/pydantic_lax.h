// Pydantic v2's lax mode: which JSON values pass as an integer, a float or a boolean, and what is wrong with
// others.
//
// "123", 5.0 and true are integers; "0.5" and 1 are floats; "yes" and 1 are booleans. Underscores, leading
// zeros, signs and Unicode whitespace in numeric strings are taken exactly where pydantic-core takes them:
// the tests in tests/clients/fastapi_reference compare with the real one.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "engine/money.h"
#include "engine/result.h"

namespace kavach::http {

// Pydantic's name for what is wrong follows from the fault and the wanted type.
enum class LaxFault : std::uint8_t {
  kType,         // not a value that this type is made from
  kParsing,      // a string (or, for a boolean, a number) that says no such value
  kFraction,     // a float with a fractional part where an integer is wanted
  kParsingSize,  // an integer too large to be converted at all
  kNotFinite,    // infinite, or not a number
  kUnicode,      // a string with a lone surrogate
  kNegative,
  kTooLarge,
};

// Costs beyond this are refused; as nano-dollars they fit in int64 with room for sums.
inline constexpr double kCostDollarsMax = 9'000'000'000.0;

template <typename T>
using Lax = boost::system::result<T, LaxFault>;

// `value` is one checked JSON value (python_json.h).
Lax<std::int64_t> lax_int(std::string_view value);  // 0 to 2^63 - 1
Lax<NanoDollars> lax_cost(std::string_view value);  // 0 to kCostDollarsMax, exact to the nano-dollar
Lax<double> lax_float(std::string_view value);      // finite
Lax<bool> lax_bool(std::string_view value);

}  // namespace kavach::http
