// Money: integer nano-dollars (1e-9 USD) from the parser on; no float is ever summed.
//
// int64 holds 9.2e9 USD. Sums saturate rather than wrap (saturating_add).
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>

namespace kavach {

using NanoDollars = std::int64_t;

inline constexpr NanoDollars kNanoPerDollar = 1'000'000'000;

// The value of a decimal number's text in nano-dollars, exactly, rounded half to even at 1e-9.
// `text` must match the JSON number grammar (optional '-', digits, fraction, exponent).
// nullopt when the text is no such number, or when the value does not fit in int64 (the caller tells these
// apart where it matters).
std::optional<NanoDollars> parse_nano_dollars(std::string_view text) noexcept;

inline std::int64_t saturating_add(std::int64_t a, std::int64_t b) noexcept {
  std::int64_t sum = 0;
  if (!__builtin_add_overflow(a, b, &sum)) return sum;
  return b > 0 ? std::numeric_limits<std::int64_t>::max() : std::numeric_limits<std::int64_t>::min();
}

}  // namespace kavach
