// Percentages in answers: 0 to 100, rounded to what a person wants to read.
#pragma once

#include <algorithm>
#include <cmath>

namespace kavach::http {

// `part` of `whole` with so many decimals; 0 of nothing.
inline double percent(double part, double whole, int decimals = 1) {
  constexpr double kMost = 1e12;  // of a limit that is next to nothing
  const double scale = std::pow(10, decimals);
  return whole > 0 ? std::round(std::min(part / whole * 100, kMost) * scale) / scale : 0;
}

}  // namespace kavach::http
