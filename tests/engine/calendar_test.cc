// The calendar, against dates that are known and against timestamps, which are read by other code.
#include "engine/calendar.h"

#include <doctest/doctest.h>

#include <cstdio>

#include "engine/timestamp.h"

namespace kavach {
namespace {

WallMicros at(const char* text) {
  const auto t = parse_timestamp(text);
  REQUIRE(t.has_value());
  return *t;
}

TEST_CASE("a day and a month hold their first and their last microsecond") {
  CHECK(day_of(0) == 0);
  CHECK(month_of(0) == 0);
  CHECK(day_of(-1) == -1);
  CHECK(month_of(-1) == -1);
  CHECK(day_of(kMicrosPerDay - 1) == 0);
  CHECK(day_of(kMicrosPerDay) == 1);
  CHECK(month_of(at("1970-01-31T23:59:59.999999Z")) == 0);
  CHECK(month_of(at("1970-02-01T00:00:00Z")) == 1);
  CHECK(month_of(at("2024-02-29T23:59:59.999999Z")) == 54 * 12 + 1);
  CHECK(month_of(at("2024-03-01T00:00:00Z")) == 54 * 12 + 2);
  CHECK(day_of(at("2026-05-25T14:30:00Z")) == 20'598);
}

TEST_CASE("a century is a leap year only every fourth time") {
  CHECK(start_of_month((2000 - 1970) * 12 + 2) - start_of_month((2000 - 1970) * 12 + 1) ==
        29 * kMicrosPerDay);
  CHECK(start_of_month((2100 - 1970) * 12 + 2) - start_of_month((2100 - 1970) * 12 + 1) ==
        28 * kMicrosPerDay);
}

TEST_CASE("every month of 9,999 years begins where its date says, and ends where the next begins") {
  for (int year = 1; year <= 9999; ++year) {
    for (int month = 1; month <= 12; ++month) {
      char text[64];
      std::snprintf(text, sizeof text, "%04d-%02d-01T00:00:00Z", year, month);
      const std::int64_t number = (year - 1970) * 12 + month - 1;
      const WallMicros start = start_of_month(number);
      CAPTURE(text);
      REQUIRE(start == at(text));
      REQUIRE(month_of(start) == number);
      REQUIRE(month_of(start - 1) == number - 1);
      REQUIRE(start_of_day(day_of(start)) == start);
    }
  }
}

}  // namespace
}  // namespace kavach
