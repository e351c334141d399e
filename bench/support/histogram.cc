#include "bench/support/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace kavach::bench {
namespace {

constexpr int kSplitBits = 7;  // buckets per power of two: 128
constexpr int kValueBits = 42;
constexpr std::size_t kBuckets = static_cast<std::size_t>(kValueBits - kSplitBits + 1) << kSplitBits;

// The bits that a bucket at this value's size ignores.
int shift_of(std::uint64_t value) noexcept {
  return std::max(0, static_cast<int>(std::bit_width(value)) - (kSplitBits + 1));
}

std::size_t bucket_of(std::uint64_t value) noexcept {
  const int shift = shift_of(value);
  return (static_cast<std::size_t>(shift) << kSplitBits) + static_cast<std::size_t>(value >> shift);
}

std::uint64_t upper_edge(std::size_t bucket) noexcept {
  const auto shift = std::max<std::size_t>(bucket >> kSplitBits, 1) - 1;
  const std::uint64_t leading = bucket - (shift << kSplitBits);
  return ((leading + 1) << shift) - 1;
}

}  // namespace

Histogram::Histogram() : counts_(kBuckets) {}

void Histogram::record(std::uint64_t value) noexcept {
  ++counts_[std::min(bucket_of(value), kBuckets - 1)];
  ++count_;
  max_ = std::max(max_, value);
  sum_ += static_cast<double>(value);
}

double Histogram::mean() const noexcept {
  return count_ == 0 ? 0 : sum_ / static_cast<double>(count_);
}

std::uint64_t Histogram::value_at(double quantile) const noexcept {
  if (count_ == 0) return 0;
  const auto wanted = std::max<std::uint64_t>(
      1, static_cast<std::uint64_t>(std::ceil(quantile * static_cast<double>(count_))));
  std::uint64_t seen = 0;
  for (std::size_t bucket = 0; bucket < kBuckets; ++bucket) {
    seen += counts_[bucket];
    if (seen >= wanted) return std::min(upper_edge(bucket), max_);
  }
  return max_;
}

}  // namespace kavach::bench
