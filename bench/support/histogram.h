// Histogram: latencies in buckets that grow with the value, so that any percentile is known to within 0.8 %
// without keeping the values (the idea of HdrHistogram, which Debian 12 does not package for C or C++).
//
// Values below 256 have a bucket each; above, every power of two is split in 128.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kavach::bench {

class Histogram {
 public:
  Histogram();

  // Values of 2^42 (73 minutes in nanoseconds) and more count as the largest bucket; max() keeps them
  // exactly.
  void record(std::uint64_t value) noexcept;

  std::uint64_t count() const noexcept { return count_; }
  std::uint64_t max() const noexcept { return max_; }
  double mean() const noexcept;
  // The smallest bucket's upper edge that at least `quantile` of the values do not exceed; 0 when empty.
  // REQUIRES: 0 <= quantile <= 1.
  std::uint64_t value_at(double quantile) const noexcept;

 private:
  std::vector<std::uint64_t> counts_;
  std::uint64_t count_ = 0;
  std::uint64_t max_ = 0;
  double sum_ = 0;
};

}  // namespace kavach::bench
