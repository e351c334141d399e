// How a period is told to `kavachd reconcile`.
#include "http/reconcile_command.h"

#include <doctest/doctest.h>

#include "engine/calendar.h"

namespace kavach::http {
namespace {

constexpr WallMicros kNow = 1'800'000'000 * kMicrosPerSecond;

TEST_CASE("a moment is so long ago, or a time of its own") {
  CHECK(parse_moment("0s", kNow) == kNow);
  CHECK(parse_moment("90s", kNow) == kNow - 90 * kMicrosPerSecond);
  CHECK(parse_moment("15m", kNow) == kNow - 900 * kMicrosPerSecond);
  CHECK(parse_moment("24h", kNow) == kNow - kMicrosPerDay);
  CHECK(parse_moment("7d", kNow) == kNow - 7 * kMicrosPerDay);
  CHECK(parse_moment("1970-01-02T00:00:00Z", kNow) == kMicrosPerDay);
  CHECK(parse_moment("1970-01-02T01:00:00+01:00", kNow) == kMicrosPerDay);
}

TEST_CASE("what is neither is no moment") {
  for (const char* text : {"", "h", "1", "-1h", "1w", "1h ", " 1h", "1.5h", "1hh", "yesterday", "1970-01-02",
                           "1969-12-31T23:59:59Z", "99999999999999999999d", "9999999999999d"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_moment(text, kNow).has_value());
  }
}

}  // namespace
}  // namespace kavach::http
