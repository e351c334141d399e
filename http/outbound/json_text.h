// JSON as the outbound side writes it. Any thread.
#pragma once

#include <string>
#include <string_view>

namespace kavach::http {

// A quoted string. The text may be any bytes: what is no UTF-8, and a surrogate, becomes U+FFFD, since a
// receiver would refuse the whole body for it.
std::string json_string(std::string_view text);

// `text` with U+FFFD for what is no UTF-8.
std::string valid_utf8(std::string_view text);

}  // namespace kavach::http
