// Tokens: the JWTs that the control API hands out (HS256), and what it makes of those that come back.
//
// Only HS256 passes, whatever a token's header says of itself. A token says who somebody was when it was
// made; whether they still are is the store's to say (Account::token_epoch).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "engine/clock.h"

namespace kavach::http {

struct Claims {
  std::string user_id;
  std::string org_id;
  std::string email;
  std::string role;
  std::int64_t epoch = 0;
};

class TokenSigner {
 public:
  static constexpr std::int64_t kLifetimeSeconds = 86'400;
  // How long after its end a token may still be exchanged for a new one.
  static constexpr std::int64_t kGraceSeconds = 86'400;

  explicit TokenSigner(std::string secret) : secret_(std::move(secret)) {}

  // Any thread.
  std::string sign(const Claims& claims, WallMicros now) const;
  // nullopt: not one of ours, tampered with, not valid yet, or ended more than `grace_s` ago.
  std::optional<Claims> check(std::string_view token, WallMicros now, std::int64_t grace_s = 0) const;

 private:
  const std::string secret_;
};

}  // namespace kavach::http
