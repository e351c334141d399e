#include "engine/ids.h"

#include <sys/random.h>

#include <array>

#if defined(__SSE4_1__)
#include <smmintrin.h>
#endif

#include "engine/check.h"

namespace kavach {
namespace {

constexpr char kHex[] = "0123456789abcdef";
// A dash stands before these bytes.
constexpr bool dash_before(std::size_t byte) {
  return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

enum class Case : bool { kLower, kEither };

#if defined(__SSE4_1__)

// Sixteen characters' values as hexadecimal digits; `bad` gets bits where one is none.
__m128i hex_values(__m128i chars, Case letters, unsigned& bad) noexcept {
  const __m128i digits = _mm_sub_epi8(chars, _mm_set1_epi8('0'));
  const __m128i lower = letters == Case::kEither ? _mm_or_si128(chars, _mm_set1_epi8(0x20)) : chars;
  const __m128i beyond_a = _mm_sub_epi8(lower, _mm_set1_epi8('a'));
  // As unsigned numbers: what is below '0' or 'a' has wrapped around.
  const __m128i is_digit = _mm_cmpeq_epi8(digits, _mm_min_epu8(digits, _mm_set1_epi8(9)));
  const __m128i is_letter = _mm_cmpeq_epi8(beyond_a, _mm_min_epu8(beyond_a, _mm_set1_epi8(5)));
  bad |= static_cast<unsigned>(_mm_movemask_epi8(_mm_or_si128(is_digit, is_letter))) ^ 0xffffU;
  return _mm_blendv_epi8(_mm_add_epi8(beyond_a, _mm_set1_epi8(10)), digits, is_digit);
}

// All digits at once: they are random, and guessing what each is costs more than anything else.
std::optional<Uuid> parse_text(std::string_view text, Case letters) noexcept {
  if (text.size() != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-')
    return std::nullopt;
  const auto load = [&text](std::size_t at) noexcept {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(text.data() + at));
  };
  // The characters between the dashes; where the first load ends too early, the other one goes on.
  const __m128i first = _mm_or_si128(
      _mm_shuffle_epi8(load(0), _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, -1, -1)),
      _mm_and_si128(load(2), _mm_setr_epi32(0, 0, 0, static_cast<int>(0xffff0000))));
  const __m128i second = _mm_or_si128(
      _mm_shuffle_epi8(load(19), _mm_setr_epi8(0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, -1)),
      _mm_and_si128(load(20), _mm_setr_epi32(0, 0, 0, static_cast<int>(0xff000000))));
  unsigned bad = 0;
  // Sixteen times the even ones and the odd ones, as numbers of 16 bits.
  const __m128i weights = _mm_set1_epi16(0x0110);
  const __m128i high = _mm_maddubs_epi16(hex_values(first, letters, bad), weights);
  const __m128i low = _mm_maddubs_epi16(hex_values(second, letters, bad), weights);
  if (bad != 0) return std::nullopt;
  Uuid u;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(u.bytes.data()), _mm_packus_epi16(high, low));
  return u;
}

#else

// The value of every character as a hexadecimal digit; what is none has bits above the low four.
using HexValues = std::array<std::uint8_t, 256>;
constexpr HexValues hex_values(bool upper_case_too) {
  HexValues values{};
  values.fill(0xff);
  for (std::uint8_t v = 0; v < 16; ++v) {
    values[static_cast<unsigned char>(kHex[v])] = v;
    if (upper_case_too && v >= 10) values[static_cast<unsigned char>('A' + v - 10)] = v;
  }
  return values;
}

// Without a branch for each digit: they are random, and guessing them wrong costs more than looking them up.
std::optional<Uuid> parse_text(std::string_view text, Case letters) noexcept {
  static constexpr HexValues kEither = hex_values(true);
  static constexpr HexValues kLower = hex_values(false);
  const HexValues& values = letters == Case::kEither ? kEither : kLower;
  // Where each byte's two digits stand.
  static constexpr std::array<std::uint8_t, 16> kPlaces{0,  2,  4,  6,  9,  11, 14, 16,
                                                        19, 21, 24, 26, 28, 30, 32, 34};
  if (text.size() != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-')
    return std::nullopt;
  const auto* const digits = reinterpret_cast<const unsigned char*>(text.data());
  Uuid u;
  unsigned seen = 0;
  for (std::size_t i = 0; i < u.bytes.size(); ++i) {
    const unsigned high = values[digits[kPlaces[i]]];
    const unsigned low = values[digits[kPlaces[i] + 1]];
    seen |= high | low;
    u.bytes[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  if (seen > 15) return std::nullopt;
  return u;
}

#endif

constexpr std::uint64_t rotl(std::uint64_t x, int k) {
  return (x << k) | (x >> (64 - k));
}

std::uint64_t splitmix(std::uint64_t& x) {
  std::uint64_t z = (x += 0x9e3779b97f4a7c15ULL);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

}  // namespace

void Uuid::write_text(char* out) const noexcept {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (dash_before(i)) *out++ = '-';
    *out++ = kHex[bytes[i] >> 4];
    *out++ = kHex[bytes[i] & 15];
  }
}

std::string Uuid::text() const {
  std::string s(36, '\0');
  write_text(s.data());
  return s;
}

std::optional<Uuid> Uuid::parse(std::string_view text) noexcept {
  return parse_text(text, Case::kEither);
}

std::optional<Uuid> Uuid::parse_canonical(std::string_view text) noexcept {
  return parse_text(text, Case::kLower);
}

Random::Random() {
  fill_secret_random(state_.data(), sizeof(state_));
}

Random::Random(std::uint64_t seed) noexcept {
  for (auto& word : state_) word = splitmix(seed);
}

std::uint64_t Random::next() noexcept {
  const std::uint64_t result = rotl(state_[1] * 5, 7) * 9;
  const std::uint64_t t = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= t;
  state_[3] = rotl(state_[3], 45);
  return result;
}

Uuid make_uuid7(WallMicros now, Random& random) noexcept {
  Uuid u;
  const auto ms = static_cast<std::uint64_t>(now / kMicrosPerMilli);
  for (std::size_t i = 0; i < 6; ++i) u.bytes[i] = static_cast<std::uint8_t>(ms >> (40 - 8 * i));
  u.bytes[6] = 0x70;
  u.bytes[7] = 0;
  const std::uint64_t r = random.next();
  for (std::size_t i = 0; i < 8; ++i) u.bytes[8 + i] = static_cast<std::uint8_t>(r >> (56 - 8 * i));
  u.bytes[8] = static_cast<std::uint8_t>((u.bytes[8] & 0x3f) | 0x80);
  return u;
}

Uuid event_id(const Uuid& batch_id, std::uint32_t index) noexcept {
  Uuid u = batch_id;
  const std::uint32_t number = ((u.bytes[6] & 0xfU) << 8 | u.bytes[7]) + index;
  KAVACH_DCHECK(number < 4096, "an event's number must fit in rand_a");
  u.bytes[6] = static_cast<std::uint8_t>(0x70 | (number >> 8));
  u.bytes[7] = static_cast<std::uint8_t>(number);
  return u;
}

void fill_secret_random(void* out, std::size_t size) noexcept {
  auto* p = static_cast<char*>(out);
  while (size > 0) {
    const ssize_t n = ::getrandom(p, size, 0);
    if (n < 0) continue;  // EINTR: the only error for a valid buffer
    p += n;
    size -= static_cast<std::size_t>(n);
  }
}

std::string to_hex(const std::uint8_t* bytes, std::size_t size) {
  std::string s;
  s.reserve(size * 2);
  for (std::size_t i = 0; i < size; ++i) {
    s.push_back(kHex[bytes[i] >> 4]);
    s.push_back(kHex[bytes[i] & 15]);
  }
  return s;
}

}  // namespace kavach
