#include "http/outbound/hmac.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <array>
#include <cstdint>

#include "engine/check.h"
#include "engine/ids.h"

namespace kavach::http {

std::string hmac_sha256_hex(std::string_view key, std::string_view text) {
  std::array<std::uint8_t, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  KAVACH_CHECK(
      HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
           reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data(), &size) != nullptr,
      "HMAC failed");
  return to_hex(digest.data(), size);
}

}  // namespace kavach::http
