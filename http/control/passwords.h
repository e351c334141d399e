// Passwords: argon2id by libsodium, and the random texts and digests of one-time codes.
//
// A hash takes a core for tens of milliseconds and tens of MiB, on purpose: so many at the same time are
// bounded, and the others wait. Never on a shard's loop.
#pragma once

#include <cstddef>
#include <mutex>
#include <semaphore>
#include <string>
#include <string_view>

namespace kavach::http {

class PasswordHasher {
 public:
  // `parallel_max`: hashes at the same time, at least 1.
  explicit PasswordHasher(std::ptrdiff_t parallel_max);

  std::string hash(std::string_view password);
  // An empty hash, of nobody, takes as long as a wrong password does, so that time does not tell them apart.
  bool matches(std::string_view password, const std::string& hash);

 private:
  std::counting_semaphore<> free_;
  const std::string nobody_;
};

// Six decimal digits.
std::string random_code();
// 256 bits in hex.
std::string random_token();
// SHA-256 in hex: what is stored of both.
std::string digest_hex(std::string_view text);

}  // namespace kavach::http
