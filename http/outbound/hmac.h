// HMAC-SHA256 (RFC 2104), as webhooks are signed with. Any thread.
#pragma once

#include <string>
#include <string_view>

namespace kavach::http {

// In lower-case hexadecimal.
std::string hmac_sha256_hex(std::string_view key, std::string_view text);

}  // namespace kavach::http
