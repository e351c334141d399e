#include "http/auth/key_table.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>

namespace kavach::http {
namespace {

std::uint64_t first_word(const sink::KeyDigest& digest) noexcept {
  std::uint64_t word = 0;
  std::memcpy(&word, digest.data(), sizeof(word));
  return word;
}

Subscription subscription_of(std::string_view status) {
  if (status == "paused") return Subscription::kPaused;
  if (status == "cancelled") return Subscription::kCancelled;
  return Subscription::kActive;  // trialing, active, past_due: contract/agentkavach.md 8
}

}  // namespace

std::uint32_t home_shard(const Uuid& org, std::uint32_t shards) noexcept {
  // One multiplication spreads it over the shards.
  return static_cast<std::uint32_t>(((org.random_half() * 0x9e3779b97f4a7c15ULL) >> 32) * shards >> 32);
}

KeyTable::KeyTable(const sink::Directory& directory, std::uint32_t shards) : version_(directory.version) {
  std::map<Uuid, std::uint32_t> index;
  orgs_.reserve(directory.orgs.size());
  for (const sink::OrgRecord& org : directory.orgs) {
    if (org.deleted) continue;
    index.emplace(org.id, static_cast<std::uint32_t>(orgs_.size()));
    orgs_.push_back({org.id, home_shard(org.id, shards), subscription_of(org.subscription_status)});
  }
  keys_.reserve(directory.keys.size());
  for (const sink::KeyRecord& key : directory.keys) {
    const auto org = index.find(key.org_id);
    if (org == index.end()) continue;  // of a deleted organization: unknown
    keys_.push_back({key.digest, key.id, key.project_id, org->second, key.active});
  }
  slots_.assign(std::bit_ceil(keys_.size() * 2 + 1), 0);
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t i = 0; i < keys_.size(); ++i) {
    std::size_t slot = first_word(keys_[i].digest) & mask;
    while (slots_[slot] != 0) slot = (slot + 1) & mask;
    slots_[slot] = static_cast<std::uint32_t>(i + 1);
  }
}

const ApiKey* KeyTable::find(const sink::KeyDigest& digest) const noexcept {
  if (slots_.empty()) return nullptr;
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t slot = first_word(digest) & mask; slots_[slot] != 0; slot = (slot + 1) & mask) {
    const ApiKey& key = keys_[slots_[slot] - 1];
    if (key.digest == digest) return &key;
  }
  return nullptr;
}

}  // namespace kavach::http
