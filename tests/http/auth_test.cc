// Keys: how they are read from a request, found in a table, and what a shard remembers of their use.
#include <doctest/doctest.h>

#include <memory>
#include <string>

#include "http/auth/api_key.h"
#include "http/auth/directory.h"
#include "http/auth/key_table.h"

namespace kavach::http {
namespace {

const std::string kHex64(64, 'a');

TEST_CASE("a key is taken from either header, the scheme in any case") {
  const std::string key = "ak_prod_" + kHex64;
  const auto with = [&](const std::string& authorization, const std::string& api_key) {
    Request request;
    request.authorization = authorization;
    request.api_key = api_key;
    const auto found = key_of(request);
    return found ? std::string(*found) : "none";
  };
  CHECK(with("Bearer " + key, "") == key);
  CHECK(with("bEaReR   " + key, "") == key);
  CHECK(with("", key) == key);
  CHECK(with("Bearer cg_legacy-1", "") == "cg_legacy-1");
  CHECK(with("Basic " + key, "") == "none");
  CHECK(with("Bearer", "") == "none");
  CHECK(with("Bearer ", "") == "none");
  CHECK(with("Bearer" + key, "") == "none");
  CHECK(with("", "") == "none");
}

TEST_CASE("only the documented forms of keys are well formed") {
  CHECK(is_well_formed_key("ak_dev_" + kHex64));
  CHECK(is_well_formed_key("ak_local_" + kHex64));
  CHECK_FALSE(is_well_formed_key("ak_test_" + kHex64));
  CHECK_FALSE(is_well_formed_key("ak_prod_" + kHex64 + "0"));
  CHECK_FALSE(is_well_formed_key("ak_prod_" + kHex64.substr(1)));
  CHECK_FALSE(is_well_formed_key("ak_prod_" + kHex64.substr(1) + "g"));
  CHECK_FALSE(is_well_formed_key("cg_"));
  CHECK_FALSE(is_well_formed_key("cg_with space"));
  CHECK_FALSE(is_well_formed_key(""));
}

TEST_CASE("the digest is SHA-256, and minted keys differ and are well formed") {
  const sink::KeyDigest digest = digest_of("abc");
  CHECK(to_hex(digest.data(), 4) == "ba7816bf");
  const MintedKey first = mint_key("dev", "ci");
  const MintedKey second = mint_key("dev", "ci");
  CHECK(is_well_formed_key(first.raw));
  CHECK(first.raw != second.raw);
  CHECK(first.stored.prefix == first.raw.substr(0, 16));
  CHECK(first.stored.digest == digest_of(first.raw));
}

sink::Directory directory_of(std::size_t keys) {
  Random random(3);
  sink::Directory directory;
  for (std::size_t i = 0; i < keys; ++i) {
    sink::OrgRecord org;
    org.id = make_uuid7(1'780'000'000'000'000, random);
    org.subscription_status = i % 3 == 0 ? "paused" : i % 3 == 1 ? "cancelled" : "past_due";
    org.deleted = i % 10 == 9;
    sink::KeyRecord key;
    key.id = make_uuid7(1'780'000'000'000'000, random);
    key.org_id = org.id;
    key.digest = digest_of("key " + std::to_string(i));
    key.active = i % 2 == 0;
    directory.orgs.push_back(org);
    directory.keys.push_back(key);
  }
  return directory;
}

TEST_CASE("every key of a table is found with its organization, others are not") {
  const KeyTable table(directory_of(5000), 4);
  for (std::size_t i = 0; i < 5000; ++i) {
    const ApiKey* key = table.find(digest_of("key " + std::to_string(i)));
    if (i % 10 == 9) {
      REQUIRE(key == nullptr);  // its organization is deleted
      continue;
    }
    REQUIRE(key != nullptr);
    CHECK(key->active == (i % 2 == 0));
    const Org& org = table.org_of(*key);
    CHECK(org.home < 4);
    CHECK(org.home == home_shard(org.id, 4));
    const Subscription expected = i % 3 == 0   ? Subscription::kPaused
                                  : i % 3 == 1 ? Subscription::kCancelled
                                               : Subscription::kActive;
    CHECK(org.subscription == expected);
  }
  CHECK(table.find(digest_of("key 5000")) == nullptr);
  CHECK(KeyTable().find(digest_of("x")) == nullptr);
}

TEST_CASE("organizations spread evenly over their home shards") {
  const KeyTable table(directory_of(8000), 4);
  std::array<int, 4> homes{};
  for (const Org& org : table.orgs()) ++homes[org.home];
  for (const int count : homes) CHECK(count > 1600);
}

TEST_CASE("use of a key is noted once a minute, use of a revoked one every time") {
  KeyRing ring;
  ring.install(std::make_unique<KeyTable>(directory_of(3), 1));
  const ApiKey& key = ring.table().keys()[0];
  const WallMicros now = 1'780'000'000'000'000;
  for (int second = 0; second < 90; ++second) ring.note_use(key, now + second * kMicrosPerSecond);
  const auto uses = ring.take_uses();
  REQUIRE(uses.size() == 2);
  CHECK(uses[1].last_used_us == now + 60 * kMicrosPerSecond);
  for (int i = 0; i < 5; ++i) ring.note_failure(key, now + i);
  const auto failures = ring.take_uses();
  REQUIRE(failures.size() == 1);
  CHECK(failures[0].failures == 5);
  CHECK(failures[0].last_failed_us == now + 4);
  CHECK(ring.take_uses().empty());
}

}  // namespace
}  // namespace kavach::http
