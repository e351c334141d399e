// Base64 with the standard alphabet and padding (RFC 4648 section 4). Any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace kavach::http {

std::string to_base64(std::string_view bytes);

// Only what to_base64() writes: no white space, no unused bits that are set.
std::optional<std::string> from_base64(std::string_view text);

}  // namespace kavach::http
