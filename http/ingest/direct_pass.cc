#include "http/ingest/direct_pass.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "engine/bounds.h"
#include "engine/timestamp.h"
#include "http/ingest/event_members.h"
#include "http/ingest/utf8.h"
#include "http/ingest/validate.h"

namespace kavach::http {
namespace {

static_assert(std::endian::native == std::endian::little, "digits are read eight at a time");

constexpr std::size_t kKeyBytes = 16;

// A key as it is written behind its opening quote, with the closing one.
struct Key {
  template <std::size_t kSize>
  consteval Key(const char (&name)[kSize]) : bytes(kSize - 1), mask((1U << bytes) - 1) {
    static_assert(kSize - 1 <= kKeyBytes, "a key is compared in one step");
    std::copy_n(name, kSize - 1, text);
  }
  alignas(kKeyBytes) char text[kKeyBytes] = {};
  std::uint32_t bytes;
  std::uint32_t mask;  // one bit per byte
};

// Where a member stands among the known ones.
consteval std::size_t index_of(Seen member) {
  return static_cast<std::size_t>(std::countr_zero(static_cast<std::uint32_t>(member)));
}

// By index_of().
constexpr std::array<Key, DirectPass::kMembers> kKeys{
    "agent_name\"", "provider\"",  "model\"",       "input_tokens\"",    "output_tokens\"",
    "cost\"",       "timestamp\"", "duration_ms\"", "idempotency_key\"", "run_id\"",
    "prompt\"",     "status\"",    "partial\""};
static_assert(index_of(kPartial) + 1 == kKeys.size());

bool is_key(const char* p, const Key& key) noexcept {
#if defined(__SSE2__)
  const __m128i read = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const __m128i wanted = _mm_load_si128(reinterpret_cast<const __m128i*>(key.text));
  const auto equal = static_cast<std::uint32_t>(_mm_movemask_epi8(_mm_cmpeq_epi8(read, wanted)));
  return (equal & key.mask) == key.mask;
#else
  return std::memcmp(p, key.text, key.bytes) == 0;
#endif
}

template <std::size_t kSize>
bool starts_with(const char* p, const char (&word)[kSize]) noexcept {
  return std::memcmp(p, word, kSize - 1) == 0;
}

bool is_digit(char c) noexcept {
  return c >= '0' && c <= '9';
}

// What a JSON number may be made of.
bool is_number_char(char c) noexcept {
  return is_digit(c) || c == '.' || c == 'e' || c == 'E' || c == '+' || c == '-';
}

// The digits at a place, up to eight, and the number that they write.
struct Digits {
  unsigned count;
  std::uint32_t value;
};

[[gnu::always_inline]] inline Digits digits_at(const char* p) noexcept {
  std::uint64_t text = 0;
  std::memcpy(&text, p, sizeof(text));
  // Of a digit, '0' to '9', what is left is 0 to 9, and of nothing else. A byte that is none may carry into
  // those behind it, which do not count any more.
  const std::uint64_t values = text ^ 0x3030303030303030;
  const std::uint64_t others = ((values + 0x7676767676767676) | values) & 0x8080808080808080;
  const unsigned count = others == 0 ? 8 : static_cast<unsigned>(std::countr_zero(others)) / 8;
  if (count == 0) return {0, 0};
  // Zeros before the digits, then pairs, fours and all eight are put together.
  std::uint64_t sum = values << (64 - 8 * count);
  sum = sum * 10 + (sum >> 8);
  sum = ((sum & 0x000000ff000000ff) * 0x000f424000000064 +
         ((sum >> 16) & 0x000000ff000000ff) * 0x0000271000000001) >>
        32;
  return {count, static_cast<std::uint32_t>(sum)};
}

constexpr std::size_t kNanoDigits = 9;
constexpr std::array<NanoDollars, kNanoDigits + 1> kPowersOfTen{
    1, 10, 100, 1'000, 10'000, 100'000, 1'000'000, 10'000'000, 100'000'000, 1'000'000'000};

// A digit's value, or more than 9.
unsigned digit_value(char c) noexcept {
  return static_cast<unsigned char>(c) - unsigned{'0'};
}

// The number below 60 that two characters write, else 60 or more.
unsigned sixtieth(const char* p) noexcept {
  const unsigned tens = digit_value(p[0]);
  const unsigned ones = digit_value(p[1]);
  return ones <= 9 && tens <= 5 ? tens * 10 + ones : 60;
}

}  // namespace

// Each method reads at `p` and returns the place behind what it read, or null when that is not plain.
//
// Where the body ends is looked at once per member and in every text. In between no more is read than a key,
// a number of 18 digits, the marks and spaces around them, and 16 bytes ahead: the body's padding makes that
// safe. What was read from the padding is never taken, because the body then does not end where it should.
class DirectPass::Reader {
 public:
  Reader(DirectPass& pass, std::string_view body, WallMicros now, Batch& batch, std::string& arena) noexcept
      : pass_(pass), body_(body), end_(body.data() + body.size()), now_(now), batch_(batch), arena_(arena) {}

  bool body(std::size_t events_max) {
    if (body_.empty()) return false;  // there may be no padding behind nothing
    const char* p = skip_spaces(body_.data());
    if (p >= end_ || *p != '{') return false;
    p = skip_spaces(p + 1);
    if (p >= end_ || !starts_with(p, "\"events\"")) return false;
    p = behind(p + sizeof("\"events\"") - 1, ':');
    if (p == nullptr) return false;
    p = behind(p, '[');
    for (std::size_t left = events_max; p != nullptr && left > 0; --left) {
      p = event(skip_spaces(p), batch_.events.emplace_back());
      if (p == nullptr) return false;
      p = skip_spaces(p);
      if (*p == ']') return ends(p + 1);
      if (*p++ != ',') return false;
    }
    return false;
  }

 private:
  static_assert(bounds::kBodyPadding >= 64, "see above: 1 + 16 + 3 + 18 + 3 + 16 bytes are read ahead");

  // Behind the list of events. What stands in the padding may be a space, too.
  bool ends(const char* p) const noexcept {
    p = skip_spaces(p);
    if (*p++ != '}') return false;
    while (p < end_ && is_json_space(*p)) ++p;
    return p == end_;
  }

  const char* skip_spaces(const char* p) const noexcept {
    if (*p == ' ') ++p;
    if (!is_json_space(*p)) [[likely]]
      return p;
    while (p < end_ && is_json_space(*p)) ++p;
    return p;
  }

  // The place behind `mark` and the spaces on both sides of it.
  const char* behind(const char* p, char mark) const noexcept {
    if (*p != mark) {
      p = skip_spaces(p);
      if (*p != mark) return nullptr;
    }
    return skip_spaces(p + 1);
  }

  const char* event(const char* p, Event& event) {
    if (*p != '{') return nullptr;
    std::uint32_t seen = 0;
    for (std::uint8_t& guess : pass_.order_) {
      p = skip_spaces(p + 1);
      if (p >= end_ || *p != '"') return nullptr;
      if (!is_key(p + 1, kKeys[guess]) && !find_key(p + 1, guess)) return nullptr;
      const std::size_t member = guess;
      const std::uint32_t bit = 1U << member;
      if ((seen & bit) != 0) return nullptr;
      seen |= bit;
      p = behind(p + 1 + kKeys[member].bytes, ':');
      if (p == nullptr) return nullptr;
      p = value(p, member, event);
      if (p == nullptr) return nullptr;
      if (*p == ',') continue;
      p = skip_spaces(p);
      if (*p == ',') continue;
      return *p == '}' && (seen & kSeenRequired) == kSeenRequired ? p + 1 : nullptr;
    }
    return nullptr;
  }

  static bool find_key(const char* p, std::uint8_t& index) noexcept {
    for (index = 0; index < kKeys.size(); ++index) {
      if (is_key(p, kKeys[index])) return true;
    }
    index = 0;
    return false;
  }

  [[gnu::always_inline]] const char* value(const char* p, std::size_t member, Event& event) {
    switch (member) {
      case index_of(kAgentName):
        return text(p, 1, bounds::kNameCharsMax, event.agent_name);
      case index_of(kProvider):
        return text(p, 1, bounds::kProviderCharsMax, event.provider);
      case index_of(kModel):
        return text(p, 1, bounds::kNameCharsMax, event.model);
      case index_of(kInputTokens):
        return integer(p, event.input_tokens);
      case index_of(kOutputTokens):
        return integer(p, event.output_tokens);
      case index_of(kCost):
        return cost(p, event.cost);
      case index_of(kTimestamp):
        return timestamp(p, event.timestamp);
      case index_of(kDurationMs):
        return integer(p, event.duration_ms);
      case index_of(kIdempotencyKey):
        return optional_text(p, event.idempotency_key);
      case index_of(kRunId):
        return optional_text(p, event.run_id);
      case index_of(kPrompt):
        return prompt(p, event.prompt);
      case index_of(kStatus):
        return status(p, event.is_error);
      case index_of(kPartial):
        return boolean(p, event.partial);
    }
    return nullptr;
  }

  // The closing quote of a text without escapes, whose characters begin at `p`.
  [[gnu::always_inline]] const char* find_quote(const char* p) const noexcept {
    const char* const begin = p;
#if defined(__SSE2__)
    const __m128i quote = _mm_set1_epi8('"');
    const __m128i backslash = _mm_set1_epi8('\\');
    const __m128i space = _mm_set1_epi8(' ');
    for (;; p += sizeof(__m128i)) {
      if (p >= end_) return nullptr;
      const __m128i chars = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
      // Below a space are the control characters and, since bytes have a sign here, all but ASCII.
      const __m128i ends =
          _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(chars, quote), _mm_cmpeq_epi8(chars, backslash)),
                       _mm_cmplt_epi8(chars, space));
      const auto found = static_cast<std::uint32_t>(_mm_movemask_epi8(ends));
      if (found == 0) continue;
      p += std::countr_zero(found);
      break;
    }
    if (p < end_ && *p == '"') [[likely]]
      return p;
#endif
    return find_quote_in_utf8(begin, p);
  }

  // Up to `p` there is nothing but ASCII.
  const char* find_quote_in_utf8(const char* begin, const char* p) const noexcept {
    for (; p < end_ && *p != '"'; ++p) {
      if (*p == '\\' || static_cast<unsigned char>(*p) < ' ') return nullptr;
    }
    if (p >= end_) return nullptr;
    const std::string_view chars(begin, static_cast<std::size_t>(p - begin));
    return is_utf8(chars, Surrogates::kRefuse) ? p : nullptr;
  }

  const char* chars(const char* p, std::string_view& out) const noexcept {
    if (*p != '"') return nullptr;
    const char* const quote = find_quote(p + 1);
    if (quote == nullptr) return nullptr;
    out = {p + 1, static_cast<std::size_t>(quote - p - 1)};
    return quote + 1;
  }

  const char* text(const char* p, std::size_t chars_min, std::size_t chars_max,
                   std::string_view& out) const noexcept {
    p = chars(p, out);
    if (p == nullptr || out.size() < chars_min) return nullptr;
    return out.size() <= chars_max || count_chars(out) <= chars_max ? p : nullptr;
  }

  const char* optional_text(const char* p, std::string_view& out) const noexcept {
    return starts_with(p, "null") ? p + 4 : text(p, 0, bounds::kNameCharsMax, out);
  }

  const char* prompt(const char* p, std::string_view& out) {
    if (starts_with(p, "null")) return p + 4;
    p = chars(p, out);
    if (p == nullptr || out.size() <= bounds::kPromptCharsMax) return p;
    // What is cut off never lengthens a text, so that this one reservation keeps all views valid.
    if (arena_.empty()) arena_.reserve(body_.size());
    out = cut_prompt(out, arena_);
    return p;
  }

  static const char* integer(const char* p, std::int64_t& out) noexcept {
    const Digits first = digits_at(p);
    if (first.count == 0 || (*p == '0' && first.count > 1)) return nullptr;
    out = first.value;
    if (first.count < 8) [[likely]]
      return p + first.count;
    for (std::size_t digits = 8;; ++digits) {
      if (!is_digit(p[digits])) return p + digits;
      if (digits == kPlainIntDigitsMax) return nullptr;
      out = out * 10 + (p[digits] - '0');
    }
  }

  const char* cost(const char* p, NanoDollars& out) const noexcept {
    const char* const behind = plain_cost(p, out);
    if (behind != nullptr && !is_number_char(*behind)) [[likely]]
      return behind;
    const char* end = p;
    while (end < end_ && is_number_char(*end)) ++end;
    if (end == p || *p == '-') return nullptr;
    const auto nano = parse_nano_dollars({p, static_cast<std::size_t>(end - p)});
    if (!nano || *nano > kPlainCostMax) return nullptr;
    out = *nano;
    return end;
  }

  // Up to seven digits, then none or up to nine behind a point: nothing is rounded, and it is below the
  // bound.
  static const char* plain_cost(const char* p, NanoDollars& out) noexcept {
    const Digits whole = digits_at(p);
    if (whole.count == 0 || whole.count == 8 || (*p == '0' && whole.count > 1)) return nullptr;
    p += whole.count;
    out = whole.value * kNanoPerDollar;
    if (*p != '.') return p;
    const Digits fraction = digits_at(p + 1);
    if (fraction.count == 0) return nullptr;
    p += 1 + fraction.count;
    out += fraction.value * kPowersOfTen[kNanoDigits - fraction.count];
    if (fraction.count == 8 && is_digit(*p)) out += *p++ - '0';
    return p;
  }

  const char* timestamp(const char* p, WallMicros& out) const noexcept {
    std::string_view text;
    p = chars(p, text);
    if (p == nullptr) return nullptr;
    WallMicros moment = 0;
    if (!usual_timestamp(text, moment)) {
      const auto parsed = parse_timestamp(text);
      if (!parsed) return nullptr;
      moment = *parsed;
    }
    out = std::min(moment, now_);
    return p;
  }

  // `YYYY-MM-DDTHH:MM:SS`, then a fraction of six digits or none, then `Z` or `+00:00`. The hour of the last
  // one is known.
  bool usual_timestamp(std::string_view text, WallMicros& out) const noexcept {
    constexpr std::size_t kSecondsEnd = 19;
    constexpr std::size_t kFractionEnd = kSecondsEnd + 7;
    if (text.size() <= kSecondsEnd) return false;
    const char* const p = text.data();
    const bool has_fraction = p[kSecondsEnd] == '.';
    const std::size_t zone_at = has_fraction ? kFractionEnd : kSecondsEnd;
    if (text.size() == zone_at + 1) {
      if (p[zone_at] != 'Z') return false;
    } else if (text.size() != zone_at + 6 || !starts_with(p + zone_at, "+00:00")) {
      return false;
    }
    if (std::memcmp(p, pass_.hour_text_.data(), pass_.hour_text_.size()) != 0 && !learn_hour(p)) return false;
    const unsigned minute = sixtieth(p + 14);
    const unsigned second = sixtieth(p + 17);
    if (p[13] != ':' || p[16] != ':' || minute > 59 || second > 59) return false;
    out = pass_.hour_ + (minute * 60 + second) * kMicrosPerSecond;
    if (!has_fraction) return true;
    const Digits micros = digits_at(p + kSecondsEnd + 1);
    out += micros.value;
    return micros.count == 6;
  }

  bool learn_hour(const char* p) const noexcept {
    constexpr std::string_view kOnTheHour = ":00Z";
    char moment[std::tuple_size_v<decltype(hour_text_)> + kOnTheHour.size()];
    std::memcpy(moment, p, pass_.hour_text_.size());
    std::memcpy(moment + pass_.hour_text_.size(), kOnTheHour.data(), kOnTheHour.size());
    const auto parsed = parse_timestamp({moment, sizeof(moment)});
    if (!parsed) return false;
    std::memcpy(pass_.hour_text_.data(), p, pass_.hour_text_.size());
    pass_.hour_ = *parsed;
    return true;
  }

  static const char* status(const char* p, bool& is_error) noexcept {
    if (starts_with(p, "\"success\"")) return p + 9;
    if (starts_with(p, "null")) return p + 4;
    is_error = starts_with(p, "\"error\"");
    return is_error ? p + 7 : nullptr;
  }

  static const char* boolean(const char* p, bool& out) noexcept {
    if (starts_with(p, "false")) return p + 5;
    out = starts_with(p, "true");
    return out ? p + 4 : nullptr;
  }

  DirectPass& pass_;
  const std::string_view body_;
  const char* const end_;
  const WallMicros now_;
  Batch& batch_;
  std::string& arena_;
};

bool DirectPass::run(std::string_view body, std::size_t events_max, WallMicros now, Batch& batch,
                     std::string& arena) {
  return Reader(*this, body, now, batch, arena).body(events_max);
}

}  // namespace kavach::http
