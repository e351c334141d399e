// SecretBox: keeps small texts (targets and secrets of alerts) unreadable in the store.
//
// AES-256-GCM under a key that is derived by HKDF-SHA256 from control.secret_key or a key file. A sealed text
// is ASCII, `k1.<id of the key>.<base64 of nonce, ciphertext, tag>`: it names its key, so that a text of
// another key is told from a damaged one, and any change of it is noticed. Sealing the same text twice gives
// two different ones: an equal target is found by a hash of its own.
//
// Any thread: constant after construction. The nonce is random (96 bits): one key is good for 2^32 texts.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "engine/result.h"

namespace kavach::http {

class SecretBox {
 public:
  // `key`: 64 hexadecimal digits, which are 32 bytes, or any passphrase. REQUIRES: not empty.
  explicit SecretBox(std::string_view key);
  ~SecretBox();
  SecretBox(const SecretBox&) = default;
  SecretBox& operator=(const SecretBox&) = default;

  std::string seal(std::string_view text) const;
  // Fails when the text is damaged or was sealed with another key; the message says which, and no secret. The
  // failure is retryable with another key: that is a matter of settings, and another node may have it.
  Result<std::string> open(std::string_view sealed) const;

  const std::string& key_id() const noexcept { return key_id_; }  // 8 hexadecimal digits, no secret

 private:
  std::array<std::uint8_t, 32> key_{};
  std::string key_id_;
};

// The key in a file, which is made (mode 0600, with its folder) when there is none; several processes may do
// so at once, and all get the same one. A file that others may read is refused.
Result<std::string> load_or_make_key(const std::string& path);

}  // namespace kavach::http
