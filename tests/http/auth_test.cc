// Keys: how they are read from a request, found in a table, and what a shard remembers of their use.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/worker_pool.h"
#include "http/auth/api_key.h"
#include "http/auth/directory.h"
#include "http/auth/key_table.h"
#include "quota/redis/announce.h"
#include "quota/redis/change_subscription.h"
#include "sink/store/store.h"
#include "tests/support/redis_server.h"
#include "tests/support/temp_folder.h"

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

// Directory of one shard with a store of its own, which is never polled unless it is asked for.
class AskedDirectory {
 public:
  AskedDirectory() {
    auto tiers = quota::TierTable::load("");
    REQUIRE_MESSAGE(tiers.has_value(), tiers.error().message);
    auto made = Directory::create(
        runtime, {&ring_}, open(), std::move(*tiers),
        [this](ShardId, const std::shared_ptr<const quota::PolicyTable>&) { installs.fetch_add(1); },
        kMicrosPerHour);
    REQUIRE_MESSAGE(made.has_value(), made.error().message);
    directory = std::move(*made);
  }
  ~AskedDirectory() { stop(); }
  AskedDirectory(const AskedDirectory&) = delete;
  AskedDirectory& operator=(const AskedDirectory&) = delete;

  AskedDirectory& start() {
    runtime.start();
    directory->start();
    return *this;
  }
  void stop() {
    directory->stop();
    runtime.stop();
  }
  // As another process would.
  void add_org() {
    const auto org = other_->create_org("acme", "free", mint_key("dev", "default").stored);
    REQUIRE_MESSAGE(org.has_value(), org.error().message);
  }
  bool eventually(const std::function<bool()>& condition) const {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > until) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }

  Runtime runtime{{.shards = 1}};
  std::unique_ptr<Directory> directory;
  std::atomic<int> installs{0};  // the first before anything runs

 private:
  std::unique_ptr<sink::Store> open() const {
    auto store = sink::open_sqlite(folder_.file("kavach.db"));
    REQUIRE_MESSAGE(store.has_value(), store.error().message);
    return std::move(*store);
  }

  test::TempFolder folder_;
  std::unique_ptr<sink::Store> other_ = open();
  KeyRing ring_;
};

TEST_CASE("a directory that is told to poll sees a change at once, and else with the next poll") {
  AskedDirectory asked;
  asked.start();
  REQUIRE(asked.installs.load() == 1);
  asked.add_org();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK(asked.installs.load() == 1);
  asked.directory->poll_now();
  CHECK(asked.eventually([&] { return asked.installs.load() == 2; }));
  // Nothing has changed since.
  for (int i = 0; i < 3; ++i) {
    asked.directory->poll_now();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  CHECK(asked.installs.load() == 2);
}

TEST_CASE("a change is seen however many threads ask meanwhile, and they do not make a load each") {
  AskedDirectory asked;
  asked.start();
  std::atomic<bool> asking{true};
  std::vector<std::thread> askers;
  for (int i = 0; i < 4; ++i) {
    askers.emplace_back([&] {
      while (asking) asked.directory->poll_now();
    });
  }
  constexpr int kChanges = 20;
  for (int i = 0; i < kChanges; ++i) {
    const int before = asked.installs.load();
    asked.add_org();
    CHECK(asked.eventually([&] { return asked.installs.load() > before; }));
  }
  asking = false;
  for (std::thread& asker : askers) asker.join();
  // One more than there were changes: of the start.
  CHECK(asked.installs.load() <= kChanges + 1);
}

TEST_CASE(
    "a change that is announced through Redis is seen, also when nobody heard of it while Redis was away") {
  test::RedisServer redis;
  const auto url = quota::RedisUrl::parse(redis.unix_url());
  REQUIRE(url.has_value());
  AskedDirectory asked;
  WorkerPool workers({.name = "test", .threads = 1});
  quota::ChangeSubscription subscription(asked.runtime.shard(0), workers,
                                         {.url = *url, .tls = nullptr, .prefix = "test:"},
                                         [&] { asked.directory->poll_now(); });
  asked.start();
  asked.runtime.shard(0).post([&] { subscription.start(); });
  REQUIRE(asked.eventually([&] { return subscription.subscriptions() == 1; }));

  asked.add_org();
  const quota::Announcement announcement{.url = *url, .tls = nullptr, .prefix = "test:"};
  REQUIRE(quota::announce_change(announcement).has_value());
  CHECK(asked.eventually([&] { return asked.installs.load() == 2; }));

  redis.kill();
  asked.add_org();
  CHECK_FALSE(quota::announce_change(announcement).has_value());
  redis.start();
  CHECK(asked.eventually([&] { return asked.installs.load() == 3; }));
  asked.runtime.shard(0).post([&] { subscription.stop(); });
  asked.stop();
}

}  // namespace
}  // namespace kavach::http
