// Percent-encoding of URLs (RFC 3986 section 2.1).
#pragma once

#include <string>
#include <string_view>

namespace kavach::http {

// A '%' that begins no escape stays as it is. `plus_is_space`: as in queries and forms.
std::string percent_decode(std::string_view text, bool plus_is_space = false);

}  // namespace kavach::http
