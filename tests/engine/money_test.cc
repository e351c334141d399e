// Money: a decimal number's text becomes exactly the nano-dollars it says, or nothing.
#include "engine/money.h"

#include "engine/ids.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <limits>
#include <string>

namespace kavach {
namespace {

constexpr NanoDollars kMax = std::numeric_limits<NanoDollars>::max();

TEST_CASE("decimal text is taken exactly, however it is written") {
  CHECK(parse_nano_dollars("0") == 0);
  CHECK(parse_nano_dollars("-0.0") == 0);
  CHECK(parse_nano_dollars("1") == kNanoPerDollar);
  CHECK(parse_nano_dollars("0.0155") == 15'500'000);
  CHECK(parse_nano_dollars("-2.5") == -2'500'000'000);
  CHECK(parse_nano_dollars("0.000000001") == 1);
  CHECK(parse_nano_dollars("1e-9") == 1);
  CHECK(parse_nano_dollars("15.5E-3") == 15'500'000);
  CHECK(parse_nano_dollars("155e+1") == 1'550 * kNanoPerDollar);
  CHECK(parse_nano_dollars("0.00000000000000000001e20") == kNanoPerDollar);
  CHECK(parse_nano_dollars("123456789.123456789") == 123'456'789'123'456'789);
  // As doubles these two are the same number.
  CHECK(parse_nano_dollars("9007199.254740992") == 9'007'199'254'740'992);
  CHECK(parse_nano_dollars("9007199.254740993") == 9'007'199'254'740'993);
}

TEST_CASE("what is beyond a nano-dollar is rounded half to even") {
  CHECK(parse_nano_dollars("0.0000000005") == 0);
  CHECK(parse_nano_dollars("0.00000000050") == 0);
  CHECK(parse_nano_dollars("0.00000000050000000000000000000001") == 1);
  CHECK(parse_nano_dollars("0.0000000015") == 2);
  CHECK(parse_nano_dollars("2.5e-9") == 2);
  CHECK(parse_nano_dollars("-3.5e-9") == -4);
  CHECK(parse_nano_dollars("0.00000000149999999999999999999999") == 1);
  CHECK(parse_nano_dollars("0.9999999999") == kNanoPerDollar);
  CHECK(parse_nano_dollars("0.4e-9") == 0);
  CHECK(parse_nano_dollars("9e-11") == 0);
  CHECK(parse_nano_dollars("5e-10") == 0);
  CHECK(parse_nano_dollars("51e-11") == 1);
}

TEST_CASE("the edges of int64 are the edges of money") {
  CHECK(parse_nano_dollars("9223372036.854775807") == kMax);
  CHECK(parse_nano_dollars("-9223372036.854775807") == -kMax);
  CHECK(parse_nano_dollars("9223372036.8547758074999") == kMax);
  for (const char* text : {"9223372036.8547758075", "9223372036.854775808", "-9223372036.854775808",
                           "18446744073.709551615", "18446744073.709551616", "18446744073.7095516159", "1e10",
                           "1e400", "-1e400", "1e99999999999999999999", "0.1e999999999999"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_nano_dollars(text).has_value());
  }
}

TEST_CASE("an exponent of any size decides in time that does not depend on it") {
  CHECK(parse_nano_dollars("0e99999999999999999999") == 0);
  CHECK(parse_nano_dollars("0.000e999999999") == 0);
  CHECK(parse_nano_dollars("1e-99999999999999999999") == 0);
  CHECK(parse_nano_dollars("12345678901234567890e-999999") == 0);
  CHECK(parse_nano_dollars("1e00000000000000000000000000000002") == 100 * kNanoPerDollar);
  CHECK(parse_nano_dollars("1" + std::string(5000, '0') + "e-5000") == kNanoPerDollar);
  CHECK(parse_nano_dollars("0." + std::string(5000, '0') + "1e5001") == kNanoPerDollar);
}

TEST_CASE("what is no number of the JSON grammar is nothing") {
  for (const char* text :
       {"",      "-",  "+1", ".5",   "5.",    "00",  "01",  "-01",      "1e",        "1e+",   "1.e5", "e5",
        "1.5.0", "1 ", " 1", "0x10", "1_000", "1,5", "NaN", "Infinity", "-Infinity", "1e5.0", "--1",  "1f"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_nano_dollars(text).has_value());
  }
}

TEST_CASE("whole, fraction and exponent agree on every split of the same digits") {
  constexpr std::uint64_t kSeed = 2;
  CAPTURE(kSeed);
  Random random(kSeed);
  for (int i = 0; i < 20'000; ++i) {
    // At least ten digits, so that the point can stand before any of the last nine.
    const auto nano =
        static_cast<NanoDollars>(1'000'000'000 + (random.next() >> (1 + random.next() % 33)) / 2);
    const std::string digits = std::to_string(nano);
    const std::size_t point = 1 + random.next() % (digits.size() - 1);
    const auto exponent = static_cast<std::int64_t>(digits.size() - point) - 9;
    const std::string text = fmt::format("{}.{}e{}", digits.substr(0, point), digits.substr(point), exponent);
    CAPTURE(text);
    CHECK(parse_nano_dollars(text) == nano);
    CHECK(parse_nano_dollars("-" + text) == -nano);
  }
}

TEST_CASE("sums saturate") {
  CHECK(saturating_add(1, 2) == 3);
  CHECK(saturating_add(kMax, 1) == kMax);
  CHECK(saturating_add(-kMax, -2) == std::numeric_limits<NanoDollars>::min());
  CHECK(saturating_add(kMax, std::numeric_limits<NanoDollars>::min()) == -1);
}

}  // namespace
}  // namespace kavach
