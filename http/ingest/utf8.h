// UTF-8: what the parser must know about characters: whether bytes are text, and how many characters they
// are.
//
// A length in the contract is in characters (code points), never in bytes.
#pragma once

#include <cstddef>
#include <string_view>

namespace kavach::http {

// Whether lone surrogates (ED A0 80 to ED BF BF) pass: Python's json.loads lets them through.
enum class Surrogates : bool { kRefuse, kAllow };

// No overlong form, nothing above U+10FFFF.
bool is_utf8(std::string_view bytes, Surrogates surrogates) noexcept;

// REQUIRES (here and below): is_utf8(text, Surrogates::kAllow).
std::size_t count_chars(std::string_view text) noexcept;

// The first `chars` characters of `text`, or all of it.
std::string_view prefix_chars(std::string_view text, std::size_t chars) noexcept;

bool has_surrogate(std::string_view text) noexcept;

}  // namespace kavach::http
