// Key table: API key to organization, one immutable copy per shard.
//
// Only SHA-256 digests of keys are ever stored or compared (contract/agentkavach.md 1.1). A digest is
// uniformly distributed, so its first eight bytes are the hash of the table. Revoked keys are in it too:
// their use is counted.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/ids.h"
#include "sink/store/store.h"

namespace kavach::http {

enum class Subscription : std::uint8_t { kActive, kPaused, kCancelled };

// What the data path needs to know of an organization.
struct Org {
  Uuid id;
  std::uint32_t home = 0;  // shard that owns its limits: hash(org) % shards
  Subscription subscription = Subscription::kActive;
};

struct ApiKey {
  sink::KeyDigest digest;
  Uuid id;
  Uuid project_id;
  std::uint32_t org = 0;  // index into orgs
  bool active = false;
};

class KeyTable {
 public:
  KeyTable() = default;
  KeyTable(const sink::Directory& directory, std::uint32_t shards);

  // Null when unknown. The pointers live as long as the table.
  const ApiKey* find(const sink::KeyDigest& digest) const noexcept;
  const Org& org_of(const ApiKey& key) const noexcept { return orgs_[key.org]; }
  std::size_t index_of(const ApiKey& key) const noexcept {
    return static_cast<std::size_t>(&key - keys_.data());
  }

  const std::vector<Org>& orgs() const noexcept { return orgs_; }
  const std::vector<ApiKey>& keys() const noexcept { return keys_; }
  std::uint64_t version() const noexcept { return version_; }

 private:
  std::uint64_t version_ = 0;
  std::vector<Org> orgs_;
  std::vector<ApiKey> keys_;
  std::vector<std::uint32_t> slots_;  // index into keys_ + 1; 0: empty; a power of two, at most half full
};

// The home shard of an organization; the same on every node with as many shards.
std::uint32_t home_shard(const Uuid& org, std::uint32_t shards) noexcept;

}  // namespace kavach::http
