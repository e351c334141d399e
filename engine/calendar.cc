// Days to the civil calendar and back by Howard Hinnant's algorithm: years begin in March, so that the leap
// day is the last of its year, and repeat every 400 years, an era of 146,097 days.
#include "engine/calendar.h"

namespace kavach {
namespace {

constexpr std::int64_t kDaysPerEra = 146'097;
constexpr std::int64_t kDaysTo1970 = 719'468;  // from 0000-03-01

constexpr std::int64_t floor_divide(std::int64_t a, std::int64_t b) noexcept {
  return a / b - (a % b < 0 ? 1 : 0);
}

}  // namespace

std::int64_t day_of(WallMicros t) noexcept {
  return floor_divide(t, kMicrosPerDay);
}

std::int64_t month_of(WallMicros t) noexcept {
  const std::int64_t day = day_of(t) + kDaysTo1970;
  const std::int64_t era = floor_divide(day, kDaysPerEra);
  const std::int64_t day_of_era = day - era * kDaysPerEra;
  const std::int64_t year_of_era =
      (day_of_era - day_of_era / 1'460 + day_of_era / 36'524 - day_of_era / 146'096) / 365;
  const std::int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const std::int64_t months_since_march = (5 * day_of_year + 2) / 153;
  return (era * 400 + year_of_era - 1970) * 12 + months_since_march + 2;
}

WallMicros start_of_day(std::int64_t day) noexcept {
  return day * kMicrosPerDay;
}

WallMicros start_of_month(std::int64_t month) noexcept {
  const std::int64_t since_march = month - 2 + 1970 * 12;
  const std::int64_t year = floor_divide(since_march, 12);
  const std::int64_t era = floor_divide(year, 400);
  const std::int64_t year_of_era = year - era * 400;
  const std::int64_t day_of_year = (153 * (since_march - year * 12) + 2) / 5;
  const std::int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return start_of_day(era * kDaysPerEra + day_of_era - kDaysTo1970);
}

}  // namespace kavach
