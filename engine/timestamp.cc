#include "engine/timestamp.h"

#include <cstdint>

namespace kavach {
namespace {

constexpr std::int64_t kSecondsPerDay = 86'400;

// Days from 1970-01-01 to a date of the proleptic Gregorian calendar, which starts its year in March here so
// that the leap day is the last of its year.
constexpr std::int64_t days_from_civil(std::int64_t year, std::int64_t month, std::int64_t day) noexcept {
  year -= month <= 2;
  const std::int64_t era = (year >= 0 ? year : year - 399) / 400;
  const std::int64_t year_of_era = year - era * 400;
  const std::int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  const std::int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return era * 146'097 + day_of_era - 719'468;
}

constexpr WallMicros kFirst = days_from_civil(1, 1, 1) * kSecondsPerDay * kMicrosPerSecond;
constexpr WallMicros kEnd = days_from_civil(10'000, 1, 1) * kSecondsPerDay * kMicrosPerSecond;

constexpr bool is_digit(char c) noexcept {
  return c >= '0' && c <= '9';
}

constexpr bool is_leap(int year) noexcept {
  return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

int days_in_month(int year, int month) noexcept {
  static constexpr int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  return month == 2 && is_leap(year) ? 29 : kDays[month - 1];
}

// `YYYY-MM-DD?HH:MM`, with which every accepted text begins.
constexpr std::size_t kMinuteChars = 16;

// The number that two characters write; `bad` becomes true when one of them is no digit. Without a branch:
// six such numbers in a row are read faster than they are looked at one by one.
int two_digits(const char* p, bool& bad) noexcept {
  const auto tens = static_cast<unsigned>(p[0] - '0');
  const auto ones = static_cast<unsigned>(p[1] - '0');
  bad |= (tens > 9) | (ones > 9);
  return static_cast<int>(tens * 10 + ones);
}

// What is left to read; each take_ moves on only over what it recognises.
struct Reader {
  const char* p;
  const char* end;

  bool at_end() const noexcept { return p == end; }

  bool take(char c) noexcept {
    if (p == end || *p != c) return false;
    ++p;
    return true;
  }

  bool take_two(int& value) noexcept {
    if (end - p < 2) return false;
    bool bad = false;
    value = two_digits(p, bad);
    p += 2;
    return !bad;
  }

  // 1 to 9 digits, cut to microseconds.
  bool take_fraction(std::int64_t& micros) noexcept {
    int digits = 0;
    for (; p < end && is_digit(*p); ++p, ++digits) {
      if (digits < 6) micros = micros * 10 + (*p - '0');
    }
    if (digits < 1 || digits > 9) return false;
    for (; digits < 6; ++digits) micros *= 10;
    return true;
  }

  // Nothing, 'Z', or a sign with hours and, with or without a colon, minutes.
  bool take_offset(std::int64_t& seconds) noexcept {
    if (at_end() || take('Z') || take('z')) return true;
    const bool west = *p == '-';
    if (!west && *p != '+') return false;
    ++p;
    int hours = 0;
    int minutes = 0;
    if (!take_two(hours) || hours > 23) return false;
    if (!at_end()) {
      take(':');
      if (!take_two(minutes) || minutes > 59) return false;
    }
    seconds = (hours * 60 + minutes) * 60;
    if (west) seconds = -seconds;
    return true;
  }
};

bool read_timestamp(std::string_view text, WallMicros& out) noexcept {
  if (text.size() < kMinuteChars) return false;
  const char* const p = text.data();
  bool bad = p[4] != '-' || p[7] != '-' || p[13] != ':' || (p[10] != 'T' && p[10] != 't' && p[10] != ' ');
  const int year = two_digits(p, bad) * 100 + two_digits(p + 2, bad);
  const int month = two_digits(p + 5, bad);
  const int day = two_digits(p + 8, bad);
  const int hour = two_digits(p + 11, bad);
  const int minute = two_digits(p + 14, bad);
  if (bad) return false;
  if (year < 1 || month < 1 || month > 12 || day < 1 || day > days_in_month(year, month)) return false;

  Reader in{p + kMinuteChars, p + text.size()};
  int second = 0;
  std::int64_t micros = 0;
  std::int64_t offset = 0;
  if (in.take(':')) {
    if (!in.take_two(second)) return false;
    if ((in.take('.') || in.take(',')) && !in.take_fraction(micros)) return false;
  }
  if (!in.take_offset(offset) || !in.at_end()) return false;
  if (hour > 23 || minute > 59 || second > 60) return false;
  if (second == 60) micros = 0;

  const std::int64_t seconds =
      days_from_civil(year, month, day) * kSecondsPerDay + hour * 3600 + minute * 60 + second - offset;
  const WallMicros t = seconds * kMicrosPerSecond + micros;
  if (t < kFirst || t >= kEnd) return false;
  out = t;
  return true;
}

}  // namespace

std::optional<WallMicros> parse_timestamp(std::string_view text) noexcept {
  WallMicros t = 0;
  if (!read_timestamp(text, t)) return std::nullopt;
  return t;
}

std::string format_timestamp(WallMicros t) {
  char text[kTimestampBytesMax];
  return std::string(text, write_timestamp(t, text));
}

std::size_t write_timestamp(WallMicros t, char* out) noexcept {
  std::int64_t micros = t % kMicrosPerSecond;
  std::int64_t seconds = t / kMicrosPerSecond;
  if (micros < 0) {
    micros += kMicrosPerSecond;
    --seconds;
  }
  std::int64_t second_of_day = seconds % kSecondsPerDay;
  std::int64_t days = seconds / kSecondsPerDay;
  if (second_of_day < 0) {
    second_of_day += kSecondsPerDay;
    --days;
  }

  // The inverse of days_from_civil().
  days += 719'468;
  const std::int64_t era = (days >= 0 ? days : days - 146'096) / 146'097;
  const std::int64_t day_of_era = days - era * 146'097;
  const std::int64_t year_of_era =
      (day_of_era - day_of_era / 1'460 + day_of_era / 36'524 - day_of_era / 146'096) / 365;
  const std::int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const std::int64_t shifted_month = (5 * day_of_year + 2) / 153;
  const std::int64_t day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
  const std::int64_t month = shifted_month < 10 ? shifted_month + 3 : shifted_month - 9;
  const std::int64_t year = year_of_era + era * 400 + (month <= 2 ? 1 : 0);

  char* at = out;
  const auto digits = [&at](std::int64_t value, int count, char behind) {
    for (int i = count; i-- > 0; value /= 10) at[i] = static_cast<char>('0' + value % 10);
    at += count;
    *at++ = behind;
  };
  digits(year, 4, '-');
  digits(month, 2, '-');
  digits(day, 2, 'T');
  digits(second_of_day / 3600, 2, ':');
  digits(second_of_day / 60 % 60, 2, ':');
  digits(second_of_day % 60, 2, micros != 0 ? '.' : 'Z');
  if (micros != 0) digits(micros, 6, 'Z');
  return static_cast<std::size_t>(at - out);
}

}  // namespace kavach
