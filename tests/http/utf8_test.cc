// UTF-8: which bytes are text, and how many characters they are.
#include "http/ingest/utf8.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <string>

namespace kavach::http {
namespace {

// The definition: the bytes of a code point.
std::string encoded(std::uint32_t code) {
  const auto byte = [](std::uint32_t bits) { return static_cast<char>(bits); };
  if (code < 0x80) return {byte(code)};
  if (code < 0x800) return {byte(0xC0 | code >> 6), byte(0x80 | (code & 0x3F))};
  if (code < 0x10000)
    return {byte(0xE0 | code >> 12), byte(0x80 | (code >> 6 & 0x3F)), byte(0x80 | (code & 0x3F))};
  return {byte(0xF0 | code >> 18), byte(0x80 | (code >> 12 & 0x3F)), byte(0x80 | (code >> 6 & 0x3F)),
          byte(0x80 | (code & 0x3F))};
}

TEST_CASE("every code point is text, surrogates only where they are allowed, and nothing lies beyond") {
  int wrong = 0;
  for (std::uint32_t code = 0; code < 0x110000 + 0x100; ++code) {
    const bool is_surrogate = code >= 0xD800 && code < 0xE000;
    const bool is_code = code < 0x110000;
    const std::string text = encoded(code);
    wrong += is_utf8(text, Surrogates::kAllow) == is_code ? 0 : 1;
    wrong += is_utf8(text, Surrogates::kRefuse) == (is_code && !is_surrogate) ? 0 : 1;
    if (!is_code) continue;
    wrong += has_surrogate("a" + text + "z") == is_surrogate ? 0 : 1;
    wrong += count_chars(text) == 1 ? 0 : 1;
    // No proper part of it is text.
    for (std::size_t size = 1; size < text.size(); ++size) {
      wrong += is_utf8(text.substr(0, size), Surrogates::kAllow) ? 1 : 0;
      wrong += is_utf8(text.substr(size), Surrogates::kAllow) ? 1 : 0;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("longer forms than needed are no text") {
  for (const char* bytes : {"\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xf0\x80\x80\x80",
                            "\xf0\x8f\xbf\xbf", "\xf8\x88\x80\x80\x80", "\xfe", "\xff"}) {
    CHECK_FALSE(is_utf8(bytes, Surrogates::kAllow));
  }
}

TEST_CASE("a bad byte is found at every place, also among long runs of ASCII") {
  for (std::size_t size = 1; size < 40; ++size) {
    for (std::size_t at = 0; at < size; ++at) {
      std::string text(size, 'x');
      CHECK(is_utf8(text, Surrogates::kRefuse));
      text[at] = '\x80';
      CHECK_FALSE(is_utf8(text, Surrogates::kRefuse));
    }
  }
}

TEST_CASE("lengths are in characters") {
  CHECK(count_chars("") == 0);
  CHECK(count_chars("aé€😀") == 4);
  CHECK(prefix_chars("aé€😀", 0).empty());
  CHECK(prefix_chars("aé€😀", 2) == "aé");
  CHECK(prefix_chars("aé€😀", 4) == "aé€😀");
  CHECK(prefix_chars("aé€😀", 5) == "aé€😀");
}

}  // namespace
}  // namespace kavach::http
