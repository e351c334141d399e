// Directory: keeps every shard's key table and policies equal to the store.
//
// One thread with a store connection of its own compares the directory's version every `poll`, and when
// poll_now() tells it to; when another
// process (or this one) changed a key, an organization, its subscription, limits, budgets or killed agents,
// it loads the directory and hands each shard a new copy of the keys and the one new table of policies.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/result.h"
#include "engine/shard.h"
#include "http/auth/key_table.h"
#include "http/auth/policy.h"
#include "quota/limits.h"
#include "quota/tiers.h"
#include "sink/store/store.h"

namespace kavach::http {

// One shard's view of the keys: looks them up and remembers their use, and which agents were turned away.
// Own thread of the shard.
class KeyRing {
 public:
  void install(std::unique_ptr<const KeyTable> table);
  const KeyTable& table() const noexcept { return *table_; }

  // Says that `key` was accepted; costs a comparison but once a minute per key.
  void note_use(const ApiKey& key, WallMicros now);
  // Says that a revoked key was used.
  void note_failure(const ApiKey& key, WallMicros now);
  // Says that an agent was refused because its organization has as many as it may; noted once a minute, and
  // of no more than a thousand agents.
  void note_rejected(const Uuid& org_id, std::string_view agent_name, WallMicros now);
  // Move out what was noted.
  std::vector<sink::KeyUse> take_uses();
  std::vector<sink::RejectedAgent> take_rejected();

 private:
  std::unique_ptr<const KeyTable> table_ = std::make_unique<KeyTable>();
  std::vector<WallMicros> last_noted_;  // by index of the key
  std::vector<sink::KeyUse> uses_;
  std::set<std::pair<Uuid, std::string>> rejected_noted_;  // since the minute began
  WallMicros rejected_since_ = 0;
  std::vector<sink::RejectedAgent> rejected_;
};

class Directory {
 public:
  // Gives a shard its policies: on the shard's thread, right before the keys that belong to them.
  using InstallPolicies =
      std::function<void(ShardId shard, std::shared_ptr<const quota::PolicyTable> policies)>;

  // Loads and installs the first tables. REQUIRES: before the shards start; the runtime outlives this;
  // rings[i] belongs to shard i.
  static Result<std::unique_ptr<Directory>> create(Runtime& runtime, std::vector<KeyRing*> rings,
                                                   std::unique_ptr<sink::Store> store, quota::TierTable tiers,
                                                   InstallPolicies install_policies, std::int64_t poll_us);
  ~Directory();  // stop()

  void start();
  void stop();
  // Any thread: the tiers were read again; all policies are built anew.
  void set_tiers(quota::TierTable tiers);
  // Any thread, never blocks for long: something may have changed. The version is compared at once; asked for
  // again meanwhile, once more, but after loading a directory the thread rests as long as that took.
  void poll_now();
  // Any thread but a shard's and the directory's own: returns when every shard has what the store says by
  // now, or after `patience_us`, or when it stops. Whether every shard has it.
  bool catch_up(std::int64_t patience_us);
  // False while the store cannot be read. Any thread.
  bool healthy() const noexcept { return healthy_.load(std::memory_order_relaxed); }

 private:
  Directory(Runtime& runtime, std::vector<KeyRing*> rings, std::unique_ptr<sink::Store> store,
            quota::TierTable tiers, InstallPolicies install_policies, std::int64_t poll_us);
  void run();
  // Until it is time to poll. True: to stop.
  bool wait(std::chrono::steady_clock::time_point rested);
  void take_new_tiers();
  void tell_caught_up(std::uint64_t round);
  // Whether the shards are given what the store says now.
  bool refresh();
  // `problem`: why the store could not be read, empty when it could. Says so when that changed. Whether it
  // could.
  bool note_health(const std::string& problem);

  Runtime& runtime_;
  const std::vector<KeyRing*> rings_;
  const InstallPolicies install_policies_;
  const std::int64_t poll_us_;
  // The directory's thread.
  std::unique_ptr<sink::Store> store_;
  quota::TierTable tiers_;
  PolicyBuilder policy_builder_;
  std::optional<std::uint64_t> version_;  // of what the shards have; absent: they are to have it anew
  std::thread thread_;
  // Any thread.
  std::atomic<bool> healthy_{true};
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;              // guarded by mutex_
  bool poll_asked_ = false;            // guarded by mutex_
  std::uint64_t round_ = 0;            // guarded by mutex_: looks at the store that have begun
  std::uint64_t installed_round_ = 0;  // guarded by mutex_: what this look found is everywhere
  std::uint64_t waiting_ = 0;          // guarded by mutex_: callers of catch_up()
  std::condition_variable installed_;
  std::optional<quota::TierTable> new_tiers_;  // guarded by mutex_
};

}  // namespace kavach::http
