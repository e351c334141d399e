#include "http/ingest/python_json.h"

#include <algorithm>
#include <bitset>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "engine/bounds.h"

namespace kavach::http {
namespace {

// sys.get_int_max_str_digits(): int() of a longer text raises ValueError.
constexpr std::size_t kIntDigitsMax = 4300;

constexpr bool is_space(char c) noexcept {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}
constexpr bool is_digit(char c) noexcept {
  return c >= '0' && c <= '9';
}

constexpr bool ends_scalar(char c) noexcept {
  return c == ',' || c == ']' || c == '}' || is_space(c);
}

constexpr int hex_digit(char c) noexcept {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

const char* skip_space(const char* p, const char* end) noexcept {
  while (p < end && is_space(*p)) ++p;
  return p;
}

const char* skip_digits(const char* p, const char* end) noexcept {
  while (p < end && is_digit(*p)) ++p;
  return p;
}

// A number at `p` as json.scanner matches it: the longest prefix that is one. nullptr when there is none.
struct ScannedNumber {
  const char* end = nullptr;
  bool is_float = false;
  std::size_t int_digits = 0;
};

ScannedNumber scan_number(const char* p, const char* end) noexcept {
  ScannedNumber number;
  if (p < end && *p == '-') ++p;
  const char* const digits = p;
  if (p == end || !is_digit(*p)) return number;
  p = *p == '0' ? p + 1 : skip_digits(p, end);
  number.int_digits = static_cast<std::size_t>(p - digits);
  if (end - p >= 2 && *p == '.' && is_digit(p[1])) {
    p = skip_digits(p + 1, end);
    number.is_float = true;
  }
  if (p < end && (*p == 'e' || *p == 'E')) {
    const char* exponent = p + 1;
    if (exponent < end && (*exponent == '+' || *exponent == '-')) ++exponent;
    if (exponent < end && is_digit(*exponent)) {
      p = skip_digits(exponent, end);
      number.is_float = true;
    }
  }
  number.end = p;
  return number;
}

// json.loads over text that may be anything: CPython's _json.c decides what is reported where.
class Checker {
 public:
  explicit Checker(std::string_view text) noexcept
      : begin_(text.data()), p_(begin_), end_(begin_ + text.size()) {}

  std::optional<JsonFault> run() noexcept {
    space();
    if (!document()) return fault_;
    space();
    if (p_ != end_) fail("Extra data", p_);
    return p_ == end_ ? std::nullopt : std::optional(fault_);
  }

 private:
  void space() noexcept { p_ = skip_space(p_, end_); }
  bool at(char c) const noexcept { return p_ < end_ && *p_ == c; }

  bool fail(const char* message, const char* where) noexcept {
    fault_ = {message, static_cast<std::size_t>(where - begin_)};
    return false;
  }

  bool document() noexcept {
    std::bitset<bounds::kJsonDepthMax> is_object;
    std::size_t depth = 0;
    while (true) {
      if (at('{') || at('[')) {
        if (depth == bounds::kJsonDepthMax) return fail(nullptr, p_);
        const bool object = *p_ == '{';
        is_object[depth++] = object;
        ++p_;
        space();
        if (!at(object ? '}' : ']')) {
          if (object && !member_name()) return false;
          continue;
        }
        ++p_;
        --depth;
      } else if (!scalar()) {
        return false;
      }
      // A value has ended: close what ends with it, then move on to the next one.
      while (true) {
        if (depth == 0) return true;
        const bool object = is_object[depth - 1];
        space();
        if (at(object ? '}' : ']')) {
          ++p_;
          --depth;
          continue;
        }
        if (!at(',')) return fail("Expecting ',' delimiter", p_);
        ++p_;
        space();
        if (object && !member_name()) return false;
        break;
      }
    }
  }

  // The name, the colon and the whitespace up to the value.
  bool member_name() noexcept {
    if (!at('"')) return fail("Expecting property name enclosed in double quotes", p_);
    if (!string()) return false;
    space();
    if (!at(':')) return fail("Expecting ':' delimiter", p_);
    ++p_;
    space();
    return true;
  }

  bool scalar() noexcept {
    if (at('"')) return string();
    if (word("null") || word("true") || word("false")) return true;
    const ScannedNumber number = scan_number(p_, end_);
    if (number.end == nullptr) return fail("Expecting value", p_);
    if (!number.is_float && number.int_digits > kIntDigitsMax) return fail(nullptr, p_);
    p_ = number.end;
    return true;
  }

  bool word(std::string_view expected) noexcept {
    if (static_cast<std::size_t>(end_ - p_) < expected.size()) return false;
    if (std::memcmp(p_, expected.data(), expected.size()) != 0) return false;
    p_ += expected.size();
    return true;
  }

  bool string() noexcept {
    const char* const begin = p_++;
    while (p_ < end_) {
      const char c = *p_;
      if (c == '"') {
        ++p_;
        return true;
      }
      if (static_cast<unsigned char>(c) < 0x20) return fail("Invalid control character at", p_);
      if (c != '\\') {
        ++p_;
      } else if (end_ - p_ < 2) {
        break;
      } else if (!escape()) {
        return false;
      }
    }
    return fail("Unterminated string starting at", begin);
  }

  bool escape() noexcept {
    const char kind = p_[1];
    if (kind != 'u') {
      if (std::strchr("\"\\/bfnrt", kind) == nullptr || kind == '\0') return fail("Invalid \\escape", p_);
      p_ += 2;
      return true;
    }
    // CPython wants one more character behind the four digits, and says so with this message.
    if (end_ - p_ < 7) return fail("Invalid \\uXXXX escape", p_ + 1);
    for (int i = 2; i < 6; ++i) {
      if (hex_digit(p_[i]) < 0) return fail("Invalid \\uXXXX escape", p_ + 1);
    }
    p_ += 6;
    return true;
  }

  const char* const begin_;
  const char* p_;
  const char* const end_;
  JsonFault fault_;
};

// Over checked text: behind the string whose opening quote is at `p`.
const char* skip_string(const char* p) noexcept {
  for (++p; *p != '"'; ++p) p += *p == '\\';
  return p + 1;
}

// Over checked text: behind the value at `p`.
const char* skip_value(const char* p, const char* end) noexcept {
  std::size_t depth = 0;
  do {
    switch (*p) {
      case '"':
        p = skip_string(p);
        break;
      case '{':
      case '[':
        ++depth;
        ++p;
        break;
      case '}':
      case ']':
        --depth;
        ++p;
        break;
      default:
        // Commas, colons and whitespace, or the whole of a number or a word.
        if (depth > 0) {
          ++p;
        } else {
          while (p < end && !ends_scalar(*p)) ++p;
        }
    }
  } while (depth > 0);
  return p;
}

std::string_view between(const char* begin, const char* end) noexcept {
  return {begin, static_cast<std::size_t>(end - begin)};
}

void append_utf8(std::uint32_t code, std::string& out) {
  const auto byte = [&out](std::uint32_t bits) { out += static_cast<char>(bits); };
  if (code < 0x80) {
    byte(code);
  } else if (code < 0x800) {
    byte(0xC0 | code >> 6);
    byte(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    byte(0xE0 | code >> 12);
    byte(0x80 | (code >> 6 & 0x3F));
    byte(0x80 | (code & 0x3F));
  } else {
    byte(0xF0 | code >> 18);
    byte(0x80 | (code >> 12 & 0x3F));
    byte(0x80 | (code >> 6 & 0x3F));
    byte(0x80 | (code & 0x3F));
  }
}

std::uint32_t four_hex(const char* p) noexcept {
  std::uint32_t code = 0;
  for (int i = 0; i < 4; ++i) code = code << 4 | static_cast<std::uint32_t>(hex_digit(p[i]));
  return code;
}

// Decodes the escape at `p` (a backslash); returns what is behind it.
const char* append_escape(const char* p, const char* end, std::string& out) {
  switch (p[1]) {
    case 'b':
      out += '\b';
      return p + 2;
    case 'f':
      out += '\f';
      return p + 2;
    case 'n':
      out += '\n';
      return p + 2;
    case 'r':
      out += '\r';
      return p + 2;
    case 't':
      out += '\t';
      return p + 2;
    case 'u':
      break;
    default:
      out += p[1];
      return p + 2;
  }
  std::uint32_t code = four_hex(p + 2);
  p += 6;
  if (code >= 0xD800 && code < 0xDC00 && end - p >= 6 && p[0] == '\\' && p[1] == 'u') {
    const std::uint32_t low = four_hex(p + 2);
    if (low >= 0xDC00 && low < 0xE000) {
      code = 0x10000 + ((code - 0xD800) << 10 | (low - 0xDC00));
      p += 6;
    }
  }
  append_utf8(code, out);
  return p;
}

// repr() of a finite float: the shortest digits that read back, without exponent from 1e-4 up to 1e16.
void append_repr(double value, std::string& out) {
  char text[64];
  const auto scientific = std::to_chars(text, text + sizeof text, value, std::chars_format::scientific);
  const std::string_view shortest = between(text, scientific.ptr);
  const std::size_t e = shortest.find('e');
  int exponent = 0;
  const char* const digits = shortest.data() + e + (shortest[e + 1] == '+' ? 2 : 1);
  std::from_chars(digits, scientific.ptr, exponent);
  if (exponent < -4 || exponent >= 16) {
    out += shortest;  // Python writes it the same way: at least two digits of exponent, with its sign
    return;
  }
  char fixed[64];
  const auto plain = std::to_chars(fixed, fixed + sizeof fixed, value, std::chars_format::fixed);
  out += between(fixed, plain.ptr);
  if (between(fixed, plain.ptr).find('.') == std::string_view::npos) out += ".0";
}

// One rendering of one value, in one pass over it; the levels of nesting share the list of members.
class Renderer {
 public:
  Renderer(std::string_view text, std::string& out) noexcept : end_(text.data() + text.size()), out_(out) {}

  // Renders the value at `p`; returns what is behind it. Recursion is as deep as the text is nested, which
  // check_json() has bounded.
  const char* value(const char* p) {
    if (*p == '{') return object(p);
    if (*p == '[') return array(p);
    if (*p == '"') return string(p);
    const char* const end = skip_value(p, end_);
    scalar(between(p, end));
    return end;
  }

 private:
  // A rendered member, as offsets into out_.
  struct Member {
    std::size_t key;
    std::size_t value;
    std::size_t end;
  };

  void scalar(std::string_view text) {
    const JsonKind kind = json_kind(text);
    const double number = kind == JsonKind::kFloat ? to_double(text) : 0;
    if (kind == JsonKind::kFloat && std::isfinite(number)) {
      append_repr(number, out_);
    } else {
      out_ += kind == JsonKind::kInt && text == "-0" ? std::string_view("0") : text;
    }
  }

  const char* string(const char* p) {
    const char* const end = skip_string(p);
    scratch_.clear();
    render_json_string(decode_string(between(p, end), scratch_), out_);
    return end;
  }

  const char* array(const char* p) {
    out_ += '[';
    p = skip_space(p + 1, end_);
    while (*p != ']') {
      if (*p == ',') {
        out_ += ',';
        p = skip_space(p + 1, end_);
      }
      p = skip_space(value(p), end_);
    }
    out_ += ']';
    return p + 1;
  }

  const char* object(const char* p) {
    const std::size_t first = members_.size();
    out_ += '{';
    p = skip_space(p + 1, end_);
    while (*p != '}') {
      if (*p == ',') {
        out_ += ',';
        p = skip_space(p + 1, end_);
      }
      Member member{out_.size(), 0, 0};
      p = skip_space(string(p), end_);
      p = skip_space(p + 1, end_);  // the colon
      out_ += ':';
      member.value = out_.size();
      p = skip_space(value(p), end_);
      member.end = out_.size();
      members_.push_back(member);
    }
    drop_duplicates(first);
    out_ += '}';
    members_.resize(first);
    return p + 1;
  }

  std::string_view key_of(const Member& member) const noexcept {
    return std::string_view(out_).substr(member.key, member.value - member.key);
  }

  // Sorts instead of hashing, so that chosen keys cannot make it slow.
  void drop_duplicates(std::size_t first) {
    if (members_.size() - first < 2) return;
    std::vector<std::size_t> order;
    for (std::size_t i = first; i < members_.size(); ++i) order.push_back(i);
    std::sort(order.begin(), order.end(), [this](std::size_t a, std::size_t b) {
      const int compared = key_of(members_[a]).compare(key_of(members_[b]));
      return compared != 0 ? compared < 0 : a < b;
    });
    // For each member the one whose value is shown at its place, or kDropped.
    constexpr auto kDropped = std::numeric_limits<std::size_t>::max();
    std::vector<std::size_t> shown(order.size());
    bool unique = true;
    for (std::size_t i = 0; i < order.size();) {
      std::size_t last = i;
      while (last + 1 < order.size() && key_of(members_[order[last + 1]]) == key_of(members_[order[i]])) {
        shown[order[++last] - first] = kDropped;
        unique = false;
      }
      shown[order[i] - first] = order[last];
      i = last + 1;
    }
    if (unique) return;

    std::string kept;
    for (std::size_t i = 0; i < shown.size(); ++i) {
      if (shown[i] == kDropped) continue;
      if (!kept.empty()) kept += ',';
      const Member& value = members_[shown[i]];
      kept += key_of(members_[first + i]);
      kept.append(out_, value.value, value.end - value.value);
    }
    out_.resize(members_[first].key);
    out_ += kept;
  }

  const char* const end_;
  std::string& out_;
  std::string scratch_;
  std::vector<Member> members_;
};

}  // namespace

std::optional<JsonFault> check_json(std::string_view text) noexcept {
  return Checker(text).run();
}

bool is_json_number(std::string_view text) noexcept {
  const char* const end = text.data() + text.size();
  const ScannedNumber number = scan_number(text.data(), end);
  return number.end == end && end != nullptr && (number.is_float || number.int_digits <= kIntDigitsMax);
}

JsonKind json_kind(std::string_view value) noexcept {
  switch (value.front()) {
    case 'n':
      return JsonKind::kNull;
    case 't':
    case 'f':
      return JsonKind::kBool;
    case '"':
      return JsonKind::kString;
    case '[':
      return JsonKind::kArray;
    case '{':
      return JsonKind::kObject;
    default:
      return value.find_first_of(".eE") == std::string_view::npos ? JsonKind::kInt : JsonKind::kFloat;
  }
}

std::string_view root_value(std::string_view text) noexcept {
  const char* const end = text.data() + text.size();
  const char* const begin = skip_space(text.data(), end);
  return between(begin, skip_value(begin, end));
}

JsonWalk::JsonWalk(std::string_view container) noexcept
    : p_(container.data() + 1), end_(container.data() + container.size() - 1) {}

bool JsonWalk::next_item(std::string_view& value) noexcept {
  p_ = skip_space(p_, end_);
  if (p_ < end_ && *p_ == ',') p_ = skip_space(p_ + 1, end_);
  if (p_ == end_) return false;
  const char* const begin = p_;
  p_ = skip_value(begin, end_);
  value = between(begin, p_);
  return true;
}

bool JsonWalk::next_member(std::string_view& key, std::string_view& value) noexcept {
  if (!next_item(key)) return false;
  p_ = skip_space(p_, end_);
  p_ = skip_space(p_ + 1, end_);  // the colon
  const char* const begin = p_;
  p_ = skip_value(begin, end_);
  value = between(begin, p_);
  return true;
}

std::string_view decode_string(std::string_view token, std::string& arena) {
  token = token.substr(1, token.size() - 2);
  if (token.find('\\') == std::string_view::npos) return token;
  const std::size_t start = arena.size();
  const char* p = token.data();
  const char* const end = p + token.size();
  while (p < end) {
    const char* run = p;
    while (p < end && *p != '\\') ++p;
    arena += between(run, p);
    if (p < end) p = append_escape(p, end, arena);
  }
  return std::string_view(arena).substr(start);
}

void render_json(std::string_view value, std::string& out) {
  Renderer(value, out).value(value.data());
}

void render_json_string(std::string_view chars, std::string& out) {
  constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (std::size_t i = 0; i < chars.size(); ++i) {
    const auto byte = static_cast<unsigned char>(chars[i]);
    if (byte == 0xED && static_cast<unsigned char>(chars[i + 1]) >= 0xA0) {
      // A lone surrogate has no UTF-8; its escape is still JSON.
      const std::uint32_t code = 0xD000U | (static_cast<unsigned char>(chars[i + 1]) & 0x3FU) << 6 |
                                 (static_cast<unsigned char>(chars[i + 2]) & 0x3FU);
      out += "\\u";
      for (int shift = 12; shift >= 0; shift -= 4) out += kHex[code >> shift & 0xF];
      i += 2;
      continue;
    }
    if (byte >= 0x20 && byte != '"' && byte != '\\') {
      out += chars[i];
      continue;
    }
    out += '\\';
    switch (byte) {
      case '"':
      case '\\':
        out += chars[i];
        break;
      case '\b':
        out += 'b';
        break;
      case '\f':
        out += 'f';
        break;
      case '\n':
        out += 'n';
        break;
      case '\r':
        out += 'r';
        break;
      case '\t':
        out += 't';
        break;
      default:
        out += "u00";
        out += kHex[byte >> 4];
        out += kHex[byte & 0xF];
    }
  }
  out += '"';
}

double to_double(std::string_view number) noexcept {
  double value = 0;
  const auto parsed = std::from_chars(number.data(), number.data() + number.size(), value);
  if (parsed.ec != std::errc::result_out_of_range) return value;
  // Too large or too small: from_chars does not say which. The place of the first digit other than zero does.
  const bool negative = number.front() == '-';
  const std::size_t e = std::min(number.find_first_of("eE"), number.size());
  const std::string_view mantissa = number.substr(0, e);
  const auto point = static_cast<std::int64_t>(std::min(mantissa.find('.'), mantissa.size()));
  const auto first = static_cast<std::int64_t>(mantissa.find_first_of("123456789"));
  bool large = first < point;
  if (e < number.size()) {
    std::int64_t exponent = 0;
    const char* digits = number.data() + e + 1;
    if (*digits == '+') ++digits;
    const auto read = std::from_chars(digits, number.data() + number.size(), exponent);
    // No digits to move by that far: the comparison cannot overflow, the sum could.
    large = read.ec == std::errc::result_out_of_range ? *digits != '-' : exponent > first - point;
  }
  value = large ? std::numeric_limits<double>::infinity() : 0.0;
  return negative ? -value : value;
}

}  // namespace kavach::http
