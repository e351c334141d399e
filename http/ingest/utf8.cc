#include "http/ingest/utf8.h"

#include <cstdint>
#include <cstring>

namespace kavach::http {
namespace {

constexpr bool is_continuation(unsigned char byte) noexcept {
  return (byte & 0xC0) == 0x80;
}

// The length of the one character at `p`, 0 when it is none. REQUIRES: p[0] >= 0x80.
std::size_t multibyte_size(const unsigned char* p, std::size_t left, Surrogates surrogates) noexcept {
  const unsigned char lead = p[0];
  if (left < 2 || lead < 0xC2 || lead > 0xF4 || !is_continuation(p[1])) return 0;
  if (lead < 0xE0) return 2;
  if (left < 3 || !is_continuation(p[2])) return 0;
  if (lead < 0xF0) {
    if (lead == 0xE0 && p[1] < 0xA0) return 0;  // overlong
    if (lead == 0xED && p[1] >= 0xA0 && surrogates == Surrogates::kRefuse) return 0;
    return 3;
  }
  if (left < 4 || !is_continuation(p[3])) return 0;
  if (lead == 0xF0 && p[1] < 0x90) return 0;   // overlong
  if (lead == 0xF4 && p[1] >= 0x90) return 0;  // above U+10FFFF
  return 4;
}

}  // namespace

bool is_utf8(std::string_view bytes, Surrogates surrogates) noexcept {
  const auto* p = reinterpret_cast<const unsigned char*>(bytes.data());
  const unsigned char* const end = p + bytes.size();
  while (p < end) {
    std::uint64_t eight = 0;
    while (end - p >= 8 && (std::memcpy(&eight, p, 8), (eight & 0x8080808080808080U) == 0)) p += 8;
    while (p < end && *p < 0x80) ++p;
    if (p == end) break;
    const std::size_t size = multibyte_size(p, static_cast<std::size_t>(end - p), surrogates);
    if (size == 0) return false;
    p += size;
  }
  return true;
}

std::size_t count_chars(std::string_view text) noexcept {
  std::size_t chars = 0;
  for (const char byte : text) chars += !is_continuation(static_cast<unsigned char>(byte));
  return chars;
}

std::string_view prefix_chars(std::string_view text, std::size_t chars) noexcept {
  std::size_t seen = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (is_continuation(static_cast<unsigned char>(text[i]))) continue;
    if (seen == chars) return text.substr(0, i);
    ++seen;
  }
  return text;
}

bool has_surrogate(std::string_view text) noexcept {
  for (std::size_t at = text.find('\xED'); at != std::string_view::npos; at = text.find('\xED', at + 1)) {
    if (at + 1 < text.size() && static_cast<unsigned char>(text[at + 1]) >= 0xA0) return true;
  }
  return false;
}

}  // namespace kavach::http
