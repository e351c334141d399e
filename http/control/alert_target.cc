#include "http/control/alert_target.h"

#include "engine/ids.h"
#include "http/auth/api_key.h"

namespace kavach::http {

std::string hash_of_target(std::string_view target) {
  if (target.empty()) return {};
  const sink::KeyDigest digest = digest_of(target);
  return to_hex(digest.data(), digest.size());
}

}  // namespace kavach::http
