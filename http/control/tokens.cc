#include "http/control/tokens.h"

#include <jwt.h>

#include <cstdlib>
#include <memory>
#include <utility>

namespace kavach::http {
namespace {

constexpr const char* kSystem = "ak";
constexpr const char* kType = "access";
// Clocks of a fleet's nodes differ so much at most.
constexpr std::int64_t kSkewSeconds = 60;

struct DestroyToken {
  void operator()(jwt_t* token) const noexcept { jwt_free(token); }
};
using Token = std::unique_ptr<jwt_t, DestroyToken>;

const unsigned char* bytes_of(const std::string& text) noexcept {
  return reinterpret_cast<const unsigned char*>(text.data());
}

std::string claim(jwt_t* token, const char* name) {
  const char* const value = jwt_get_grant(token, name);
  return value == nullptr ? std::string() : std::string(value);
}

}  // namespace

std::string TokenSigner::sign(const Claims& claims, WallMicros now) const {
  jwt_t* made = nullptr;
  if (jwt_new(&made) != 0) std::abort();  // no memory
  const Token token(made);
  const std::int64_t seconds = now / kMicrosPerSecond;
  jwt_add_grant(made, "sub", claims.user_id.c_str());
  jwt_add_grant(made, "org", claims.org_id.c_str());
  jwt_add_grant(made, "email", claims.email.c_str());
  jwt_add_grant(made, "role", claims.role.c_str());
  jwt_add_grant(made, "sys", kSystem);
  jwt_add_grant(made, "typ", kType);
  jwt_add_grant_int(made, "epoch", static_cast<long>(claims.epoch));
  jwt_add_grant_int(made, "iat", static_cast<long>(seconds));
  jwt_add_grant_int(made, "exp", static_cast<long>(seconds + kLifetimeSeconds));
  jwt_set_alg(made, JWT_ALG_HS256, bytes_of(secret_), static_cast<int>(secret_.size()));
  const std::unique_ptr<char, decltype(&std::free)> text(jwt_encode_str(made), &std::free);
  return text == nullptr ? std::string() : std::string(text.get());
}

std::optional<Claims> TokenSigner::check(std::string_view token, WallMicros now, std::int64_t grace_s) const {
  jwt_t* read = nullptr;
  const std::string text(token);
  if (jwt_decode(&read, text.c_str(), bytes_of(secret_), static_cast<int>(secret_.size())) != 0)
    return std::nullopt;
  const Token owned(read);
  if (jwt_get_alg(read) != JWT_ALG_HS256) return std::nullopt;
  if (claim(read, "sys") != kSystem || claim(read, "typ") != kType) return std::nullopt;
  const std::int64_t seconds = now / kMicrosPerSecond;
  const std::int64_t issued = jwt_get_grant_int(read, "iat");
  const std::int64_t expires = jwt_get_grant_int(read, "exp");
  if (issued <= 0 || issued > seconds + kSkewSeconds || expires <= issued) return std::nullopt;
  if (seconds >= expires + grace_s) return std::nullopt;
  Claims claims{.user_id = claim(read, "sub"),
                .org_id = claim(read, "org"),
                .email = claim(read, "email"),
                .role = claim(read, "role"),
                .epoch = jwt_get_grant_int(read, "epoch")};
  if (claims.user_id.empty() || claims.org_id.empty()) return std::nullopt;
  return claims;
}

}  // namespace kavach::http
