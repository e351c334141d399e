#include "engine/money.h"

#include <algorithm>
#include <array>

namespace kavach {
namespace {

constexpr bool is_digit(char c) noexcept {
  return c >= '0' && c <= '9';
}

// A decimal number's parts, as the JSON grammar cuts them.
struct Decimal {
  bool negative = false;
  std::string_view whole;
  std::string_view fraction;
  std::int64_t exponent = 0;
};

// Beyond this an exponent says no more than "overflows" or "is zero": no text in memory has as many digits.
constexpr std::int64_t kExponentMax = std::int64_t{1} << 40;

std::string_view take_digits(const char*& p, const char* end) noexcept {
  const char* const begin = p;
  while (p < end && is_digit(*p)) ++p;
  return {begin, static_cast<std::size_t>(p - begin)};
}

bool take_exponent(const char*& p, const char* end, std::int64_t& exponent) noexcept {
  bool negative = false;
  if (p < end && (*p == '+' || *p == '-')) negative = *p++ == '-';
  const std::string_view digits = take_digits(p, end);
  if (digits.empty()) return false;
  for (const char digit : digits) exponent = std::min(exponent * 10 + (digit - '0'), kExponentMax);
  if (negative) exponent = -exponent;
  return true;
}

bool cut(std::string_view text, Decimal& number) noexcept {
  const char* p = text.data();
  const char* const end = p + text.size();
  if (p < end && *p == '-') {
    number.negative = true;
    ++p;
  }
  number.whole = take_digits(p, end);
  if (number.whole.empty() || (number.whole.size() > 1 && number.whole.front() == '0')) return false;
  if (p < end && *p == '.') {
    ++p;
    number.fraction = take_digits(p, end);
    if (number.fraction.empty()) return false;
  }
  if (p < end && (*p == 'e' || *p == 'E')) {
    ++p;
    if (!take_exponent(p, end, number.exponent)) return false;
  }
  return p == end;
}

constexpr std::size_t kNanoDigits = 9;
constexpr std::array<NanoDollars, kNanoDigits + 1> kPowersOfTen{
    1, 10, 100, 1'000, 10'000, 100'000, 1'000'000, 10'000'000, 100'000'000, 1'000'000'000};

// The price as almost everybody writes it: at most nine digits on either side of the point, so that nothing
// is rounded and nothing overflows. False for any other text.
bool parse_plain(std::string_view text, NanoDollars& nano) noexcept {
  const char* p = text.data();
  const char* const end = p + text.size();
  const std::string_view whole = take_digits(p, end);
  if (whole.empty() || whole.size() > kNanoDigits || (whole.size() > 1 && whole.front() == '0')) return false;
  std::string_view fraction;
  if (p < end) {
    if (*p++ != '.') return false;
    fraction = take_digits(p, end);
    if (p != end || fraction.empty() || fraction.size() > kNanoDigits) return false;
  }
  NanoDollars digits = 0;
  for (const char c : whole) digits = digits * 10 + (c - '0');
  for (const char c : fraction) digits = digits * 10 + (c - '0');
  nano = digits * kPowersOfTen[kNanoDigits - fraction.size()];
  return true;
}

}  // namespace

std::optional<NanoDollars> parse_nano_dollars(std::string_view text) noexcept {
  if (NanoDollars nano = 0; parse_plain(text, nano)) return nano;
  Decimal number;
  if (!cut(text, number)) return std::nullopt;

  // The digits left of this position (counted from the first one) are whole nano-dollars, the rest is
  // rounded.
  const auto whole_size = static_cast<std::int64_t>(number.whole.size());
  const auto size = whole_size + static_cast<std::int64_t>(number.fraction.size());
  const std::int64_t kept = whole_size + number.exponent + 9;
  if (kept < 0) return 0;  // less than a tenth of a nano-dollar

  const auto digit_at = [&](std::int64_t i) noexcept {
    const auto at = static_cast<std::size_t>(i < whole_size ? i : i - whole_size);
    return static_cast<std::uint64_t>((i < whole_size ? number.whole[at] : number.fraction[at]) - '0');
  };
  std::uint64_t nano = 0;
  std::int64_t i = 0;
  const auto push = [&nano](std::uint64_t digit) noexcept {
    return !__builtin_mul_overflow(nano, 10U, &nano) && !__builtin_add_overflow(nano, digit, &nano);
  };
  for (; i < std::min(kept, size); ++i) {
    if (!push(digit_at(i))) return std::nullopt;
  }
  // Zeros that the exponent appends: at most 20 of them before a value other than zero overflows.
  for (; i < kept && nano != 0; ++i) {
    if (!push(0)) return std::nullopt;
  }
  if (kept < size) {
    const std::uint64_t next = digit_at(kept);
    bool more = false;
    for (std::int64_t rest = kept + 1; rest < size && !more; ++rest) more = digit_at(rest) != 0;
    // At most 2^64 - 1 as it stands, and such a value is refused below: no wrap that could go unseen.
    if (next > 5 || (next == 5 && (more || nano % 2 == 1))) {
      if (__builtin_add_overflow(nano, 1U, &nano)) return std::nullopt;
    }
  }
  constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<NanoDollars>::max());
  if (nano > kMax) return std::nullopt;
  const auto value = static_cast<NanoDollars>(nano);
  return number.negative ? -value : value;
}

}  // namespace kavach
