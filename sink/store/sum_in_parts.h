// Sums of int64 columns, of which SQLite refuses those that do not fit in one and Postgres shows them as
// another type: so they are added up in two parts, and saturate like every sum of Kavach.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "engine/money.h"

namespace kavach::sink {

inline constexpr std::int64_t kPart = 1'000'000'000;

// Two columns of a SELECT, for from_parts().
inline std::string sum_in_parts(const std::string& column) {
  const std::string part = std::to_string(kPart);
  return "SUM(" + column + " / " + part + "), SUM(" + column + " % " + part + ")";
}

inline std::int64_t from_parts(std::int64_t high, std::int64_t low) noexcept {
  constexpr auto kMax = std::numeric_limits<std::int64_t>::max();
  constexpr auto kMin = std::numeric_limits<std::int64_t>::min();
  std::int64_t whole = 0;
  if (__builtin_mul_overflow(high, kPart, &whole)) return high < 0 ? kMin : kMax;
  return saturating_add(whole, low);
}

// Of a row's two columns, the first of which is `column`.
template <typename Row>
std::int64_t sum_at(const Row& row, int column) noexcept {
  return from_parts(row.integer(column), row.integer(column + 1));
}

}  // namespace kavach::sink
