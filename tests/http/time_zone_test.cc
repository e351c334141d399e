// Time zones: where days begin, also where the clocks change.
#include "http/control/time_zone.h"

#include <doctest/doctest.h>

#include <string>
#include <string_view>

#include "engine/timestamp.h"

namespace kavach::http {
namespace {

std::string start_of(std::string_view zone, std::string_view at, int days = 0) {
  return format_timestamp(day_start(zone, parse_timestamp(at).value(), days));
}

TEST_CASE("a day begins at its zone's midnight") {
  CHECK(start_of("UTC", "2026-05-25T14:30:00.5Z") == "2026-05-25T00:00:00Z");
  CHECK(start_of("UTC", "2026-05-25T00:00:00Z") == "2026-05-25T00:00:00Z");
  CHECK(start_of("Asia/Kolkata", "2026-05-25T18:29:59.999999Z") == "2026-05-24T18:30:00Z");
  CHECK(start_of("Asia/Kolkata", "2026-05-25T18:30:00Z") == "2026-05-25T18:30:00Z");
  CHECK(start_of("Asia/Kathmandu", "2026-05-25T18:15:00Z") == "2026-05-25T18:15:00Z");
  CHECK(start_of("America/New_York", "2026-05-25T03:59:59Z") == "2026-05-24T04:00:00Z");
}

TEST_CASE("days are counted by the calendar, over months, years and the time before 1970") {
  CHECK(start_of("Asia/Kolkata", "2026-03-01T12:00:00Z", -1) == "2026-02-27T18:30:00Z");
  CHECK(start_of("UTC", "2026-12-31T12:00:00Z", 1) == "2027-01-01T00:00:00Z");
  CHECK(start_of("UTC", "1969-12-31T12:00:00Z") == "1969-12-31T00:00:00Z");
}

TEST_CASE("in spring a day has 23 hours, in autumn 25") {
  // The clocks go from 02:00 to 03:00 on March 8th, and from 02:00 to 01:00 on November 1st.
  CHECK(start_of("America/New_York", "2026-03-08T12:00:00Z") == "2026-03-08T05:00:00Z");
  CHECK(start_of("America/New_York", "2026-03-08T12:00:00Z", 1) == "2026-03-09T04:00:00Z");
  CHECK(start_of("America/New_York", "2026-03-10T12:00:00Z", -2) == "2026-03-08T05:00:00Z");
  CHECK(start_of("America/New_York", "2026-11-01T12:00:00Z") == "2026-11-01T04:00:00Z");
  CHECK(start_of("America/New_York", "2026-11-01T12:00:00Z", 1) == "2026-11-02T05:00:00Z");
  // Both times that the clocks show 01:30.
  CHECK(start_of("America/New_York", "2026-11-01T05:30:00Z") == "2026-11-01T04:00:00Z");
  CHECK(start_of("America/New_York", "2026-11-01T06:30:00Z") == "2026-11-01T04:00:00Z");
}

TEST_CASE("a day without a midnight begins where the clocks go on") {
  // At midnight they went to 01:00.
  CHECK(start_of("America/Sao_Paulo", "2018-11-04T12:00:00Z") == "2018-11-04T03:00:00Z");
  CHECK(start_of("America/Sao_Paulo", "2018-11-03T12:00:00Z", 1) == "2018-11-04T03:00:00Z");
  CHECK(start_of("America/Sao_Paulo", "2018-11-04T02:59:59Z") == "2018-11-03T03:00:00Z");
  CHECK(start_of("America/Sao_Paulo", "2018-11-04T12:00:00Z", 1) == "2018-11-05T02:00:00Z");
}

TEST_CASE("a day with two midnights begins at the first") {
  // At midnight of November 1st's end the clocks went back to 00:00 of the same day.
  CHECK(start_of("America/Havana", "2026-11-01T12:00:00Z") == "2026-11-01T04:00:00Z");
  CHECK(start_of("America/Havana", "2026-11-01T04:30:00Z") == "2026-11-01T04:00:00Z");
  CHECK(start_of("America/Havana", "2026-11-01T05:30:00Z") == "2026-11-01T04:00:00Z");
}

TEST_CASE("a day that a zone leaves out is empty") {
  // Samoa crossed the date line: there was no December 30th.
  CHECK(start_of("Pacific/Apia", "2011-12-29T12:00:00Z", 1) == "2011-12-30T10:00:00Z");
  CHECK(start_of("Pacific/Apia", "2011-12-29T12:00:00Z", 2) == "2011-12-30T10:00:00Z");
}

TEST_CASE("names of the database are zones, paths are none") {
  CHECK(is_time_zone("America/New_York"));
  CHECK(known_zone("America/New_York") == "America/New_York");
  CHECK(known_zone("Mars/Olympus") == "UTC");
  CHECK(is_time_zone("UTC"));
  for (const std::string_view name : {"", "Mars/Olympus", "../zoneinfo/UTC", "/usr/share/zoneinfo/UTC"})
    CHECK_FALSE(is_time_zone(name));
}

}  // namespace
}  // namespace kavach::http
