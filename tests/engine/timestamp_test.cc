// Timestamps: the forms that contract 1.3 allows, and moments held against a calendar too simple to be wrong.
#include "engine/timestamp.h"

#include "engine/ids.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <string>

namespace kavach {
namespace {

// 2026-05-25T14:30:00Z.
constexpr WallMicros kMoment = 1'779'719'400 * kMicrosPerSecond;

TEST_CASE("a time with Z, with an offset or with nothing is one moment in UTC") {
  for (const char* text :
       {"2026-05-25T14:30:00Z", "2026-05-25t14:30:00z", "2026-05-25 14:30:00", "2026-05-25T14:30",
        "2026-05-25T14:30Z", "2026-05-25T16:30:00+02", "2026-05-25T20:00:00+0530",
        "2026-05-25T20:00:00+05:30", "2026-05-25T11:00:00-03:30", "2026-05-26T04:30:00+14:00",
        "2026-05-24T14:31:00-23:59", "2026-05-25T14:30:00-00:00", "2026-05-25T14:30:00.000000000Z"}) {
    CAPTURE(text);
    CHECK(parse_timestamp(text) == kMoment);
  }
}

TEST_CASE("a fraction has 1 to 9 digits and is cut to microseconds, never rounded") {
  CHECK(parse_timestamp("2026-05-25T14:30:00.1Z") == kMoment + 100'000);
  CHECK(parse_timestamp("2026-05-25T14:30:00,123456") == kMoment + 123'456);
  CHECK(parse_timestamp("2026-05-25T14:30:00.1234569+00:00") == kMoment + 123'456);
  CHECK(parse_timestamp("2026-05-25T14:30:00.999999999Z") == kMoment + 999'999);
  CHECK_FALSE(parse_timestamp("2026-05-25T14:30:00.Z").has_value());
  CHECK_FALSE(parse_timestamp("2026-05-25T14:30:00.1234567890Z").has_value());
  CHECK_FALSE(parse_timestamp("2026-05-25T14:30.5Z").has_value());
}

TEST_CASE("a leap second is the first moment of the next minute, whatever its fraction") {
  const auto new_year = parse_timestamp("2017-01-01T00:00:00Z");
  CHECK(parse_timestamp("2016-12-31T23:59:60Z") == new_year);
  CHECK(parse_timestamp("2016-12-31T23:59:60.999Z") == new_year);
  CHECK(parse_timestamp("2017-01-01T05:29:60+05:30") == new_year);
  CHECK_FALSE(parse_timestamp("2016-12-31T23:59:61Z").has_value());
}

TEST_CASE("the calendar ends where years 1 and 9999 end, also when only an offset leads beyond") {
  CHECK(parse_timestamp("0001-01-01T00:00:00Z") == -62'135'596'800 * kMicrosPerSecond);
  CHECK(parse_timestamp("9999-12-31T23:59:59.999999Z") == 253'402'300'800 * kMicrosPerSecond - 1);
  for (const char* text : {"0000-12-31T23:59:59Z", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:60Z",
                           "9999-12-31T23:59:59-00:01", "10000-01-01T00:00:00Z"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_timestamp(text).has_value());
  }
}

TEST_CASE("days, hours, minutes and offsets that do not exist are refused") {
  CHECK(parse_timestamp("2024-02-29T00:00Z").has_value());
  CHECK(parse_timestamp("2000-02-29T00:00Z").has_value());
  for (const char* text :
       {"2026-02-29T00:00Z", "1900-02-29T00:00Z", "2026-02-30T00:00Z", "2026-04-31T00:00Z",
        "2026-00-01T00:00Z", "2026-13-01T00:00Z", "2026-01-00T00:00Z", "2026-01-32T00:00Z",
        "2026-01-01T24:00Z", "2026-01-01T00:60Z", "2026-01-01T00:00+24:00", "2026-01-01T00:00+00:60"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_timestamp(text).has_value());
  }
}

TEST_CASE("other spellings are refused") {
  for (const char* text : {"",
                           " ",
                           "now",
                           "1779719400",
                           "2026-05-25",
                           "2026-05-25T",
                           "2026-05-25T14",
                           "20260525T143000Z",
                           "2026-W22-1T14:30Z",
                           "2026-145T14:30Z",
                           "26-05-25T14:30Z",
                           "2026-5-25T14:30Z",
                           "2026/05/25T14:30Z",
                           "2026-05-25_14:30Z",
                           "2026-05-25  14:30Z",
                           "2026-05-25T14:30:0Z",
                           "2026-05-25T14:30:00 Z",
                           "2026-05-25T14:30:00ZZ",
                           "2026-05-25T14:30:00+",
                           "2026-05-25T14:30:00+5",
                           "2026-05-25T14:30:00+05:",
                           "2026-05-25T14:30:00+053",
                           "2026-05-25T14:30:00+05:30Z",
                           " 2026-05-25T14:30Z",
                           "2026-05-25T14:30Z ",
                           "-2026-05-25T14:30Z",
                           "+2026-05-25T14:30Z",
                           "2026-05-25T-1:30Z",
                           "2026-05-25T14:30Z\n"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_timestamp(text).has_value());
  }
  CHECK_FALSE(parse_timestamp(std::string_view("2026-05-25T14:30:00\0", 20)).has_value());
}

TEST_CASE("a text cut off anywhere is refused or is the shorter form that it then is") {
  const std::string text = "2026-05-25T14:30:00.123456+05:30";
  for (std::size_t size = 0; size < text.size(); ++size) {
    CAPTURE(size);
    const bool is_complete = size == 16 || size == 19 || (size >= 21 && size <= 26) || size == 29;
    CHECK(parse_timestamp(text.substr(0, size)).has_value() == is_complete);
  }
}

// A calendar that only knows how long years and months are.
struct Date {
  int year = 1;
  int month = 1;
  int day = 1;

  bool leap() const { return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0; }
  int month_days() const {
    if (month == 2) return leap() ? 29 : 28;
    return month == 4 || month == 6 || month == 9 || month == 11 ? 30 : 31;
  }
  void go_on() {
    if (++day <= month_days()) return;
    day = 1;
    if (++month <= 12) return;
    month = 1;
    ++year;
  }
};

TEST_CASE("the ends of every month of all years are as many days after the first day as were counted") {
  constexpr std::int64_t kMicrosPerDay = 24 * kMicrosPerHour;
  const WallMicros first = *parse_timestamp("0001-01-01T00:00Z");
  std::int64_t days = 0;
  std::int64_t wrong = 0;
  for (Date date; date.year < 10'000; date.go_on(), ++days) {
    if (date.day > 1 && date.day < 28) continue;
    const std::string text = fmt::format("{:04}-{:02}-{:02}T00:00:00Z", date.year, date.month, date.day);
    const auto parsed = parse_timestamp(text);
    if (parsed != first + days * kMicrosPerDay || format_timestamp(*parsed) != text) ++wrong;
  }
  CHECK(days == 3'652'059);
  CHECK(wrong == 0);
}

TEST_CASE("any moment reads back as it was written, with and without an offset") {
  constexpr std::uint64_t kSeed = 1;
  CAPTURE(kSeed);
  Random random(kSeed);
  const WallMicros first = *parse_timestamp("0001-01-02T00:00Z");
  const WallMicros last = *parse_timestamp("9999-12-30T23:59:59Z");
  for (int i = 0; i < 20'000; ++i) {
    const auto span = static_cast<std::uint64_t>(last - first);
    const WallMicros moment = first + static_cast<WallMicros>(random.next() % span);
    CAPTURE(moment);
    CHECK(parse_timestamp(format_timestamp(moment)) == moment);
    // The clock of a place `minutes` east of Greenwich shows the later time.
    const auto minutes = static_cast<std::int64_t>(random.next() % (24 * 60));
    std::string there = format_timestamp(moment + minutes * 60 * kMicrosPerSecond);
    there.pop_back();
    CHECK(parse_timestamp(there + fmt::format("+{:02}:{:02}", minutes / 60, minutes % 60)) == moment);
  }
}

TEST_CASE("a moment is written with six digits of fraction, or none") {
  CHECK(format_timestamp(kMoment) == "2026-05-25T14:30:00Z");
  CHECK(format_timestamp(kMoment + 1) == "2026-05-25T14:30:00.000001Z");
  CHECK(format_timestamp(-1) == "1969-12-31T23:59:59.999999Z");
  CHECK(format_timestamp(0) == "1970-01-01T00:00:00Z");
}

}  // namespace
}  // namespace kavach
