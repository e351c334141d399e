#include "http/control/passwords.h"

#include <fmt/format.h>
#include <sodium.h>

#include <array>
#include <cstdint>
#include <cstdlib>

#include "engine/ids.h"
#include "http/auth/api_key.h"

namespace kavach::http {
namespace {

// OWASP's second choice for argon2id, in libsodium's units: 19 MiB, two passes.
constexpr unsigned long long kPasses = 2;
constexpr std::size_t kMemoryBytes = std::size_t{19} << 20;

std::string hashed(std::string_view password) {
  std::array<char, crypto_pwhash_STRBYTES> out{};
  if (crypto_pwhash_str_alg(out.data(), password.data(), password.size(), kPasses, kMemoryBytes,
                            crypto_pwhash_ALG_ARGON2ID13) != 0) {
    std::abort();  // no memory
  }
  return out.data();
}

}  // namespace

PasswordHasher::PasswordHasher(std::ptrdiff_t parallel_max)
    : free_(parallel_max),
      nobody_(sodium_init() < 0 ? (std::abort(), std::string()) : hashed(random_token())) {}

std::string PasswordHasher::hash(std::string_view password) {
  free_.acquire();
  std::string made = hashed(password);
  free_.release();
  return made;
}

bool PasswordHasher::matches(std::string_view password, const std::string& hash) {
  free_.acquire();
  const std::string& against = hash.empty() ? nobody_ : hash;
  const bool right = crypto_pwhash_str_verify(against.c_str(), password.data(), password.size()) == 0;
  free_.release();
  return right && !hash.empty();
}

std::string random_code() {
  return fmt::format("{:06}", randombytes_uniform(1'000'000));
}

std::string random_token() {
  std::array<std::uint8_t, 32> bytes{};
  fill_secret_random(bytes.data(), bytes.size());
  return to_hex(bytes.data(), bytes.size());
}

std::string digest_hex(std::string_view text) {
  const sink::KeyDigest digest = digest_of(text);
  return to_hex(digest.data(), digest.size());
}

}  // namespace kavach::http
