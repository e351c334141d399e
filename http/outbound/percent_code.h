// Percent-encoding of URLs (RFC 3986 section 2.1). Any thread.
#pragma once

#include <string>
#include <string_view>

namespace kavach::http {

// A '%' that begins no escape stays as it is. `plus_is_space`: as in queries and forms.
std::string percent_decode(std::string_view text, bool plus_is_space = false);

// RFC 3986's unreserved characters stay.
std::string percent_encode(std::string_view text);

}  // namespace kavach::http
