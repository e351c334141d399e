// API keys as text: how they are read from a request, made, and turned into digests.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "http/transport/handler.h"
#include "sink/store/store.h"

namespace kavach::http {

// `ak_{prod,dev,local}_<64 hex>` or the legacy `cg_…` (contract/agentkavach.md 1.1).
bool is_well_formed_key(std::string_view key) noexcept;

// Of a key, so many characters are stored and shown; what is longer is a secret.
inline constexpr std::size_t kKeyPrefixChars = 16;

// The key of a request: `Authorization: Bearer <key>` (the scheme in any case), else `X-API-Key`. nullopt
// when there is none or it is malformed.
std::optional<std::string_view> key_of(const Request& request) noexcept;

// SHA-256. Any thread.
sink::KeyDigest digest_of(std::string_view key) noexcept;

struct MintedKey {
  std::string raw;  // shown once, then forgotten
  sink::NewKey stored;
};
// A new random key for environment prod, dev or local.
MintedKey mint_key(std::string_view environment, std::string_view name);

}  // namespace kavach::http
