#include "http/auth/directory.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/log.h"

namespace kavach::http {
namespace {

constexpr WallMicros kNoteEvery = 60 * kMicrosPerSecond;

}  // namespace

// --- KeyRing -----------------------------------------------------------------------------------------------

void KeyRing::install(std::unique_ptr<const KeyTable> table) {
  // A change of one key must not make all others write their use again.
  std::vector<WallMicros> noted(table->keys().size(), 0);
  for (std::size_t i = 0; i < noted.size(); ++i) {
    const ApiKey* before = table_->find(table->keys()[i].digest);
    if (before != nullptr) noted[i] = last_noted_[table_->index_of(*before)];
  }
  table_ = std::move(table);
  last_noted_ = std::move(noted);
}

void KeyRing::note_use(const ApiKey& key, WallMicros now) {
  WallMicros& last = last_noted_[table_->index_of(key)];
  if (now - last < kNoteEvery) return;
  last = now;
  uses_.push_back({.key_id = key.id, .last_used_us = now});
}

void KeyRing::note_failure(const ApiKey& key, WallMicros now) {
  if (!uses_.empty() && uses_.back().key_id == key.id) {
    ++uses_.back().failures;
    uses_.back().last_failed_us = now;
    return;
  }
  uses_.push_back({.key_id = key.id, .failures = 1, .last_failed_us = now});
}

void KeyRing::note_rejected(const Uuid& org_id, std::string_view agent_name, WallMicros now) {
  constexpr std::size_t kNotedMax = 1'000;
  if (now - rejected_since_ >= kNoteEvery) {
    rejected_noted_.clear();
    rejected_since_ = now;
  }
  if (rejected_noted_.size() >= kNotedMax) return;
  if (!rejected_noted_.emplace(org_id, agent_name).second) return;
  rejected_.push_back({.org_id = org_id, .name = std::string(agent_name), .at_us = now});
}

std::vector<sink::KeyUse> KeyRing::take_uses() {
  return std::exchange(uses_, {});
}

std::vector<sink::RejectedAgent> KeyRing::take_rejected() {
  return std::exchange(rejected_, {});
}

// --- Directory ---------------------------------------------------------------------------------------------

Directory::Directory(Runtime& runtime, std::vector<KeyRing*> rings, std::unique_ptr<sink::Store> store,
                     quota::TierTable tiers, InstallPolicies install_policies, std::int64_t poll_us)
    : runtime_(runtime),
      rings_(std::move(rings)),
      install_policies_(std::move(install_policies)),
      poll_us_(poll_us),
      store_(std::move(store)),
      tiers_(std::move(tiers)) {}

Result<std::unique_ptr<Directory>> Directory::create(Runtime& runtime, std::vector<KeyRing*> rings,
                                                     std::unique_ptr<sink::Store> store,
                                                     quota::TierTable tiers, InstallPolicies install_policies,
                                                     std::int64_t poll_us) {
  std::unique_ptr<Directory> made(new Directory(runtime, std::move(rings), std::move(store), std::move(tiers),
                                                std::move(install_policies), poll_us));
  const auto directory = made->store_->load_directory();
  if (!directory) return failure("cannot read the keys: " + directory.error().message);
  made->version_ = directory->version;
  const auto policies = made->policy_builder_.build(*directory, made->tiers_);
  for (std::size_t i = 0; i < made->rings_.size(); ++i) {
    made->install_policies_(static_cast<ShardId>(i), policies);
    made->rings_[i]->install(std::make_unique<KeyTable>(*directory, runtime.size()));
  }
  return made;
}

Directory::~Directory() {
  stop();
}

void Directory::start() {
  thread_ = std::thread([this] {
    ::pthread_setname_np(::pthread_self(), "directory");
    run();
  });
}

void Directory::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  installed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Directory::set_tiers(quota::TierTable tiers) {
  {
    const std::lock_guard lock(mutex_);
    new_tiers_ = std::move(tiers);
  }
  wake_.notify_all();
}

void Directory::poll_now() {
  {
    const std::lock_guard lock(mutex_);
    poll_asked_ = true;
  }
  wake_.notify_all();
}

bool Directory::catch_up(std::int64_t patience_us) {
  std::unique_lock lock(mutex_);
  // The look that is under way may have begun before the change.
  const std::uint64_t wanted = round_ + 1;
  poll_asked_ = true;
  ++waiting_;
  wake_.notify_all();
  installed_.wait_for(lock, std::chrono::microseconds(patience_us),
                      [&] { return stopping_ || installed_round_ >= wanted; });
  --waiting_;
  return installed_round_ >= wanted;
}

// Behind what the shards were just given.
void Directory::tell_caught_up(std::uint64_t round) {
  const auto left = std::make_shared<std::atomic<std::size_t>>(rings_.size());
  for (std::size_t i = 0; i < rings_.size(); ++i) {
    runtime_.shard(static_cast<ShardId>(i)).post([this, left, round] {
      if (--*left > 0) return;
      const std::lock_guard lock(mutex_);
      installed_round_ = std::max(installed_round_, round);
      installed_.notify_all();
    });
  }
}

bool Directory::wait(std::chrono::steady_clock::time_point rested) {
  std::unique_lock lock(mutex_);
  wake_.wait_for(lock, std::chrono::microseconds(poll_us_),
                 [this] { return stopping_ || new_tiers_ || poll_asked_; });
  if (poll_asked_) wake_.wait_until(lock, rested, [this] { return stopping_ || new_tiers_; });
  // Before the version is read, so that no change which is announced from here on is missed.
  poll_asked_ = false;
  ++round_;
  return stopping_;
}

void Directory::run() {
  using Clock = std::chrono::steady_clock;
  auto rested = Clock::now();
  for (;;) {
    if (wait(rested)) return;
    const auto began = Clock::now();
    take_new_tiers();
    const bool is_fresh = refresh();
    std::uint64_t round = 0;
    bool is_waited_for = false;
    {
      const std::lock_guard lock(mutex_);
      round = round_;
      is_waited_for = waiting_ > 0;
    }
    if (is_waited_for) {
      if (is_fresh) {
        tell_caught_up(round);
      } else {
        poll_now();  // again, for who waits
      }
    }
    // A script that changes a thousand keys makes as many announcements.
    const auto ended = Clock::now();
    rested = ended + std::min<Clock::duration>(ended - began, std::chrono::microseconds(poll_us_));
  }
}

bool Directory::note_health(const std::string& problem) {
  const bool readable = problem.empty();
  if (readable == healthy()) return readable;
  healthy_.store(readable, std::memory_order_relaxed);
  if (readable) {
    log::info("directory: the store can be read again");
  } else {
    log::error("directory: cannot read the store, keys stay as they are: {}", problem);
  }
  return readable;
}

void Directory::take_new_tiers() {
  const std::lock_guard lock(mutex_);
  if (!new_tiers_) return;
  tiers_ = std::move(*new_tiers_);
  new_tiers_.reset();
  version_.reset();
}

bool Directory::refresh() {
  const auto version = store_->directory_version();
  if (!version) return note_health(version.error().message);
  if (*version == version_) return note_health({});
  const auto directory = store_->load_directory();
  if (!directory) return note_health(directory.error().message);
  note_health({});
  version_ = directory->version;
  const auto policies = policy_builder_.build(*directory, tiers_);
  for (std::size_t i = 0; i < rings_.size(); ++i) {
    // Built here, so that the shard only swaps pointers; std::function wants something copyable.
    auto keys = std::make_shared<std::unique_ptr<const KeyTable>>(
        std::make_unique<const KeyTable>(*directory, runtime_.size()));
    const auto shard = static_cast<ShardId>(i);
    runtime_.shard(shard).post(
        [install_policies = install_policies_, shard, policies, ring = rings_[i], keys] {
          install_policies(shard, policies);
          ring->install(std::move(*keys));
        });
  }
  log::info("directory: {} organizations, {} keys", directory->orgs.size(), directory->keys.size());
  return true;
}

}  // namespace kavach::http
