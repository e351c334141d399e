// Texts to values: parse_timestamp(), format_timestamp() and parse_nano_dollars() against references that are
// too simple to be wrong: a regular expression for the grammar, <chrono> for the calendar, a string of digits
// for the decimal point.
#include <chrono>
#include <cstdint>
#include <optional>
#include <regex>
#include <string>
#include <string_view>

#include "engine/check.h"
#include "engine/money.h"
#include "engine/timestamp.h"
#include "http/ingest/python_json.h"

namespace kavach {
namespace {

// std::regex matches by recursion; values longer than this have nothing new.
constexpr std::size_t kTextBytesMax = 200;

std::optional<WallMicros> reference_timestamp(const std::string& text) {
  static const std::regex grammar(
      R"((\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?(?:[Zz]|([+-])(\d\d)(?::?(\d\d))?)?)");
  std::smatch part;
  if (!std::regex_match(text, part, grammar)) return std::nullopt;
  const auto number = [&part](std::size_t i) { return part[i].matched ? std::stoi(part[i]) : 0; };

  namespace chrono = std::chrono;
  const chrono::year_month_day date(chrono::year(number(1)), chrono::month(static_cast<unsigned>(number(2))),
                                    chrono::day(static_cast<unsigned>(number(3))));
  const int hour = number(4);
  const int minute = number(5);
  const int second = number(6);
  if (!date.ok() || number(1) == 0 || hour > 23 || minute > 59 || second > 60) return std::nullopt;
  if (number(9) > 23 || number(10) > 59) return std::nullopt;
  const int sign = part[8] == "-" ? -1 : 1;
  const int micros = second == 60 ? 0 : std::stoi((part[7].str() + "000000").substr(0, 6));
  const chrono::sys_time<chrono::microseconds> moment =
      chrono::sys_days(date) + chrono::hours(hour) + chrono::minutes(minute) + chrono::seconds(second) +
      chrono::microseconds(micros) - sign * (chrono::hours(number(9)) + chrono::minutes(number(10)));
  const chrono::year_month_day utc(chrono::floor<chrono::days>(moment));
  if (utc.year() < chrono::year(1) || utc.year() > chrono::year(9999)) return std::nullopt;
  return moment.time_since_epoch().count();
}

// nullopt: no number, or none that fits.
std::optional<NanoDollars> reference_money(const std::string& text) {
  static const std::regex grammar(R"((-?)(0|[1-9]\d*)(?:\.(\d+))?(?:[eE]([+-]?\d+))?)");
  std::smatch part;
  if (!std::regex_match(text, part, grammar)) return std::nullopt;
  std::string digits = part[2].str() + part[3].str();
  if (digits.find_first_not_of('0') == std::string::npos) return 0;
  // An exponent beyond this says "zero" or "does not fit" of a text that is no longer than kTextBytesMax.
  constexpr double kExponentMax = 1000;
  const double exponent = part[4].matched ? std::stod(part[4]) : 0;
  if (exponent > kExponentMax) return std::nullopt;
  if (exponent < -kExponentMax) return 0;
  // Where the decimal point of the nano-dollars stands among the digits, which zeros extend as far as needed.
  const int point = static_cast<int>(part[2].length()) + static_cast<int>(exponent) + 9;
  if (point < 0) {
    digits.insert(0, static_cast<std::size_t>(-point), '0');
  } else {
    digits.append(static_cast<std::size_t>(point), '0');
  }
  const std::string whole = "0" + digits.substr(0, static_cast<std::size_t>(std::max(point, 0)));
  const std::string rest = digits.substr(static_cast<std::size_t>(std::max(point, 0))) + "0";

  const std::size_t first = std::min(whole.find_first_not_of('0'), whole.size() - 1);
  if (whole.size() - first > 19) return std::nullopt;
  std::uint64_t nano = std::stoull(whole.substr(first));
  const bool is_half = rest.front() == '5' && rest.find_first_not_of('0', 1) == std::string::npos;
  if (is_half ? nano % 2 == 1 : rest.front() >= '5') ++nano;
  if (nano > static_cast<std::uint64_t>(std::numeric_limits<NanoDollars>::max())) return std::nullopt;
  const auto value = static_cast<NanoDollars>(nano);
  return part[1].length() > 0 ? -value : value;
}

void check_timestamp(const std::string& text) {
  const auto parsed = parse_timestamp(text);
  KAVACH_CHECK(parsed == reference_timestamp(text), "the timestamp is not the reference's");
  if (!parsed) return;
  const std::string formatted = format_timestamp(*parsed);
  KAVACH_CHECK(parse_timestamp(formatted) == parsed, "a formatted timestamp is read back as another one");
  KAVACH_CHECK(reference_timestamp(formatted) == parsed, "a formatted timestamp is another one");
}

void check_money(const std::string& text) {
  KAVACH_CHECK(parse_nano_dollars(text) == reference_money(text), "the money is not the reference's");
  static const std::regex grammar(R"(-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?)");
  KAVACH_CHECK(http::is_json_number(text) == std::regex_match(text, grammar), "the number's grammar differs");
}

}  // namespace
}  // namespace kavach

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  if (size > kavach::kTextBytesMax) return 0;
  const std::string text(reinterpret_cast<const char*>(bytes), size);
  kavach::check_timestamp(text);
  kavach::check_money(text);
  return 0;
}
