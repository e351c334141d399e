#include "http/ingest/pydantic_lax.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>
#include <system_error>

#include "http/ingest/python_json.h"
#include "http/ingest/utf8.h"

namespace kavach::http {

namespace {

// pydantic-core converts no text longer than this (as Python's int()).
constexpr std::size_t kIntTextMax = 4300;
// Where float and int64 meet: pydantic-core wants to be strictly between.
constexpr double kInt64Bound = 9'223'372'036'854'775'808.0;

constexpr bool is_digit(char c) noexcept {
  return c >= '0' && c <= '9';
}

bool all_digits(std::string_view text) noexcept {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_digit);
}

// The size of the white space (Unicode's White_Space, what Rust's trim() takes off) that `text` starts with.
std::size_t space_prefix(std::string_view text) noexcept {
  if (text.empty()) return 0;
  const char c = text.front();
  if (c == ' ' || (c >= '\t' && c <= '\r')) return 1;
  for (const std::string_view space :
       {"\u0085", "\u00A0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006",
        "\u2007", "\u2008", "\u2009", "\u200A", "\u2028", "\u2029", "\u202F", "\u205F", "\u3000"}) {
    if (text.starts_with(space)) return space.size();
  }
  return 0;
}

std::string_view trim(std::string_view text) noexcept {
  while (const std::size_t size = space_prefix(text)) text.remove_prefix(size);
  while (!text.empty()) {
    std::size_t last = text.size() - 1;
    while (last > 0 && (static_cast<unsigned char>(text[last]) & 0xC0) == 0x80) --last;
    if (space_prefix(text.substr(last)) == 0) break;
    text = text.substr(0, last);
  }
  return text;
}

// A string's value without its underscores; nullopt where pydantic-core lets none stand.
std::optional<std::string> without_underscores(std::string_view text) {
  if (text.starts_with('_') || text.ends_with('_')) return std::nullopt;
  if (text.find("__") != std::string_view::npos) return std::nullopt;
  std::string out(text);
  std::erase(out, '_');
  return out;
}

// An optional sign and digits to the range that the contract wants.
Lax<std::int64_t> in_range(bool negative, std::string_view digits) noexcept {
  const std::size_t first = digits.find_first_not_of('0');
  if (first == std::string_view::npos) return 0;
  if (negative) return LaxFault::kNegative;
  std::int64_t value = 0;
  for (const char digit : digits.substr(first)) {
    if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, digit - '0', &value)) {
      return LaxFault::kTooLarge;
    }
  }
  return value;
}

// pydantic-core's strip_leading_zeros(): zeros and underscores in front go, wherever they stand.
std::optional<std::string_view> strip_leading_zeros(std::string_view text) noexcept {
  if (text.empty()) return std::nullopt;
  const char front = text.front();
  if ((front >= '1' && front <= '9') || front == '-') return text;
  if (front != '0') return std::nullopt;
  const std::size_t i = text.find_first_not_of("0_", 1);
  if (i == std::string_view::npos) return text.substr(text.size() - 1);
  if (is_digit(text[i]) || text[i] == '-') return text.substr(i);
  if (text[i] == '.') return text.substr(i - 1);
  return std::nullopt;
}

Lax<std::int64_t> int_from_text(std::string_view text) {
  {
    std::string_view digits = text;
    const bool negative = digits.starts_with('-');
    if (negative) digits.remove_prefix(1);
    if (all_digits(digits) && digits.front() != '0') {
      return digits.size() > kIntTextMax ? Lax<std::int64_t>(LaxFault::kParsingSize)
                                         : in_range(negative, digits);
    }
  }
  text = trim(text);
  if (text.starts_with('+')) {
    text.remove_prefix(1);
    if (text.starts_with('-')) return LaxFault::kParsing;
  }
  const auto stripped = strip_leading_zeros(text);
  if (!stripped) return LaxFault::kParsing;
  text = *stripped;
  if (const std::size_t dot = text.find('.'); dot != std::string_view::npos) {
    const std::string_view fraction = text.substr(dot + 1);
    if (fraction.empty() || fraction.find_first_not_of('0') != std::string_view::npos)
      return LaxFault::kParsing;
    text = text.substr(0, dot);
  }
  const bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  const auto digits = without_underscores(text);
  if (!digits || !all_digits(*digits) || digits->size() > kIntTextMax) return LaxFault::kParsing;
  return in_range(negative, *digits);
}

bool is_int64(double value) noexcept {
  return value > -kInt64Bound && value < kInt64Bound && std::fmod(value, 1.0) == 0;
}

bool is_int64(std::string_view integer) noexcept {
  std::int64_t value = 0;
  const char* const end = integer.data() + integer.size();
  return std::from_chars(integer.data(), end, value).ec == std::errc();
}

Lax<std::int64_t> int_from_float(double value) noexcept {
  if (!std::isfinite(value)) return LaxFault::kNotFinite;
  if (std::fmod(value, 1.0) != 0) return LaxFault::kFraction;
  if (!is_int64(value)) return LaxFault::kParsingSize;
  if (value < 0) return LaxFault::kNegative;
  return static_cast<std::int64_t>(value);
}

// `number` is in JSON's grammar.
Lax<NanoDollars> cost_from_number(std::string_view number) noexcept {
  const double dollars = to_double(number);
  if (!std::isfinite(dollars)) return LaxFault::kNotFinite;
  if (dollars < 0) return LaxFault::kNegative;
  if (dollars > kCostDollarsMax) return LaxFault::kTooLarge;
  const auto nano = parse_nano_dollars(number);
  return nano ? Lax<NanoDollars>(*nano) : Lax<NanoDollars>(LaxFault::kTooLarge);
}

bool equals_ignoring_case(std::string_view text, std::string_view lower) noexcept {
  return std::equal(text.begin(), text.end(), lower.begin(), lower.end(), [](char a, char b) {
    return (a >= 'A' && a <= 'Z' ? static_cast<char>(a - 'A' + 'a') : a) == b;
  });
}

// What Rust's f64 parser takes beyond JSON ("+1", ".5", "5.", "007"), brought into JSON's grammar.
std::string to_json_number(std::string_view text) {
  std::string number;
  if (text.starts_with('-')) number += '-';
  if (text.starts_with('-') || text.starts_with('+')) text.remove_prefix(1);
  const std::string_view mantissa = text.substr(0, text.find_first_of("eE"));
  std::string_view whole = mantissa.substr(0, mantissa.find('.'));
  const std::string_view fraction = whole.size() < mantissa.size() ? mantissa.substr(whole.size() + 1) : "";
  if (whole.empty() && fraction.empty()) return {};
  // Before zeros are taken off: what is behind them might look like a number by itself.
  if (!whole.empty() && !all_digits(whole)) return {};
  whole.remove_prefix(std::min(whole.find_first_not_of('0'), whole.size()));
  number += whole.empty() ? std::string_view("0") : whole;
  if (!fraction.empty()) (number += '.') += fraction;
  number += text.substr(mantissa.size());
  return number;
}

// A float's text as a number of JSON's grammar.
Lax<std::string> number_of_text(std::string_view text) {
  // Whitespace and underscores are each taken, but not both: pydantic-core trims only on its first attempt.
  const bool separated = text.find('_') != std::string_view::npos;
  const auto plain = separated ? without_underscores(text) : std::optional<std::string>(trim(text));
  if (!plain) return LaxFault::kParsing;
  std::string_view word = *plain;
  if (word.starts_with('-') || word.starts_with('+')) word.remove_prefix(1);
  for (const std::string_view not_finite : {"inf", "infinity", "nan"}) {
    if (equals_ignoring_case(word, not_finite)) return LaxFault::kNotFinite;
  }
  const std::string number = to_json_number(*plain);
  // A float's text may be of any length: only the grammar is asked for, hence the exponent that makes it a
  // float.
  const bool has_exponent = number.find_first_of("eE") != std::string::npos;
  if (number.empty() || !is_json_number(has_exponent ? number : number + "e0")) return LaxFault::kParsing;
  return number;
}

Lax<NanoDollars> cost_from_text(std::string_view text) {
  const auto number = number_of_text(text);
  return number ? cost_from_number(*number) : Lax<NanoDollars>(number.error());
}

Lax<double> finite(double number) noexcept {
  return std::isfinite(number) ? Lax<double>(number) : Lax<double>(LaxFault::kNotFinite);
}

// The characters of a JSON string, or the fault of having a lone surrogate.
Lax<std::string_view> text_of(std::string_view token, std::string& scratch) {
  scratch.reserve(token.size());
  const std::string_view text = decode_string(token, scratch);
  if (has_surrogate(text)) return LaxFault::kUnicode;
  return text;
}

}  // namespace

Lax<std::int64_t> lax_int(std::string_view value) {
  switch (json_kind(value)) {
    case JsonKind::kInt: {
      const bool negative = value.starts_with('-');
      return in_range(negative, value.substr(negative ? 1 : 0));
    }
    case JsonKind::kFloat:
      return int_from_float(to_double(value));
    case JsonKind::kBool:
      return value == "true" ? 1 : 0;
    case JsonKind::kString: {
      std::string scratch;
      const auto text = text_of(value, scratch);
      return text ? int_from_text(*text) : Lax<std::int64_t>(text.error());
    }
    case JsonKind::kNull:
    case JsonKind::kArray:
    case JsonKind::kObject:
      break;
  }
  return LaxFault::kType;
}

Lax<NanoDollars> lax_cost(std::string_view value) {
  switch (json_kind(value)) {
    case JsonKind::kInt:
    case JsonKind::kFloat:
      return cost_from_number(value);
    case JsonKind::kBool:
      return value == "true" ? kNanoPerDollar : 0;
    case JsonKind::kString: {
      std::string scratch;
      const auto text = text_of(value, scratch);
      return text ? cost_from_text(*text) : Lax<NanoDollars>(text.error());
    }
    case JsonKind::kNull:
    case JsonKind::kArray:
    case JsonKind::kObject:
      break;
  }
  return LaxFault::kType;
}

Lax<double> lax_float(std::string_view value) {
  switch (json_kind(value)) {
    case JsonKind::kInt:
    case JsonKind::kFloat:
      return finite(to_double(value));
    case JsonKind::kBool:
      return value == "true" ? 1.0 : 0.0;
    case JsonKind::kString: {
      std::string scratch;
      const auto text = text_of(value, scratch);
      if (!text) return text.error();
      const auto number = number_of_text(*text);
      return number ? finite(to_double(*number)) : Lax<double>(number.error());
    }
    case JsonKind::kNull:
    case JsonKind::kArray:
    case JsonKind::kObject:
      break;
  }
  return LaxFault::kType;
}

Lax<bool> lax_bool(std::string_view value) {
  switch (json_kind(value)) {
    case JsonKind::kBool:
      return value == "true";
    case JsonKind::kInt:
    case JsonKind::kFloat: {
      // A number that int64 does not hold is no candidate at all; of the others only 0 and 1 say something.
      const double number = to_double(value);
      if (!(json_kind(value) == JsonKind::kInt ? is_int64(value) : is_int64(number))) return LaxFault::kType;
      if (number != 0 && number != 1) return LaxFault::kParsing;
      return number == 1;
    }
    case JsonKind::kString: {
      std::string scratch;
      const auto text = text_of(value, scratch);
      if (!text) return text.error();
      for (const std::string_view yes : {"1", "t", "true", "on", "y", "yes"}) {
        if (equals_ignoring_case(*text, yes)) return true;
      }
      for (const std::string_view no : {"0", "f", "false", "off", "n", "no"}) {
        if (equals_ignoring_case(*text, no)) return false;
      }
      return LaxFault::kParsing;
    }
    case JsonKind::kNull:
    case JsonKind::kArray:
    case JsonKind::kObject:
      break;
  }
  return LaxFault::kType;
}

}  // namespace kavach::http
