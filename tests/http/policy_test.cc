// Policies: from an organization's rows to its limits, and how a change reaches every shard.
#include "http/auth/policy.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <fstream>
#include <limits>
#include <mutex>
#include <string>
#include <vector>

#include "engine/shard.h"
#include "http/auth/api_key.h"
#include "http/auth/directory.h"
#include "tests/sink/store_fixture.h"

namespace kavach::http {
namespace {

using quota::kUnlimited;
using sink::kNoLimit;
using sink::test::Sql;

sink::OrgRecord org_of(const char* tier, sink::OrgLimits limits = {}, std::uint32_t number = 1) {
  sink::OrgRecord org;
  org.id = sink::test::numbered_id(2, number);
  org.tier = tier;
  org.limits = limits;
  return org;
}

// Tiers from TOML text, as an operator would write them.
quota::TierTable tiers_of(const std::string& toml) {
  const sink::test::TempFolder folder;
  std::ofstream(folder.file("tiers.toml")) << toml;
  auto tiers = quota::TierTable::load(folder.file("tiers.toml"));
  REQUIRE(tiers.has_value());
  return std::move(*tiers);
}

std::int64_t budget_limit(const char* type, double limit) {
  const auto budget =
      budget_of({.id = "b", .org_id = {}, .type = type, .period = "daily", .limit = limit, .unit = ""});
  return budget ? budget->limit : -1;
}

}  // namespace

TEST_CASE("an organization has its tier's limits, and its own where it has some") {
  const quota::TierTable tiers = quota::TierTable::built_in();
  const quota::Policy plain = limits_of(org_of("pro"), tiers);
  CHECK(plain.tier == "pro");
  CHECK(plain.events_per_day == 10'000);
  CHECK(plain.agents_max == 100);
  CHECK(plain.burst_per_minute == 5'000);
  CHECK(limits_of(org_of("max"), tiers).agents_max == kUnlimited);

  const quota::Policy own = limits_of(org_of("pro", {.events_per_day = 0, .agents_max = kNoLimit}), tiers);
  CHECK(own.events_per_day == 0);
  CHECK(own.agents_max == kUnlimited);
  CHECK(own.burst_per_minute == 5'000);
  CHECK(limits_of(org_of("max", {.agents_max = 7}), tiers).agents_max == 7);
}

TEST_CASE("an unknown tier has the limits of free, of the table's or else of the contract's") {
  const quota::Policy policy =
      limits_of(org_of("gold", {.agents_max = 5}), tiers_of("[free]\nevents_per_day = 9\n"));
  CHECK(policy.tier == "gold");
  CHECK(policy.events_per_day == 9);
  CHECK(policy.agents_max == 5);
  CHECK(limits_of(org_of("gold"), tiers_of("[pro]\n")).events_per_day == 1'000);
}

TEST_CASE("money becomes nano-dollars, rounded; everything else whole units, rounded up") {
  CHECK(budget_limit("cost", 50.31) == 50'310'000'000);
  CHECK(budget_limit("cost", 0.1) == 100'000'000);
  CHECK(budget_limit("cost", 1.0000000006) == 1'000'000'001);
  CHECK(budget_limit("cost", 1.0000000004) == 1'000'000'000);
  CHECK(budget_limit("cost", 1e-12) == 1);
  CHECK(budget_limit("cost", 9.3e9) == kUnlimited);
  CHECK(budget_limit("cost", std::numeric_limits<double>::infinity()) == kUnlimited);
  CHECK(budget_limit("calls", 2) == 2);
  CHECK(budget_limit("tokens_total", 2.1) == 3);
  CHECK(budget_limit("duration", 1e300) == kUnlimited);
}

TEST_CASE("what is no budget of an organization is none") {
  CHECK(budget_limit("loops", 1) == -1);
  CHECK(budget_limit("cost", 0) == -1);
  CHECK(budget_limit("cost", -1) == -1);
  CHECK(budget_limit("cost", std::nan("")) == -1);
  CHECK_FALSE(
      budget_of({.id = "b", .org_id = {}, .type = "cost", .period = "per_run", .limit = 1, .unit = ""}));
}

TEST_CASE("every organization gets its own budgets and killed agents; a deleted one gets no policy") {
  sink::Directory directory;
  for (std::uint32_t i = 0; i < 3; ++i) directory.orgs.push_back(org_of("pro", {}, i));
  directory.orgs[2].deleted = true;
  const auto id = [&](std::size_t i) { return directory.orgs[i].id; };
  directory.budgets = {{"a", id(1), "cost", "monthly", 5, "usd"},
                       {"b", id(1), "loops", "daily", 5, ""},
                       {"c", id(0), "calls", "total", 6, ""},
                       {"d", id(2), "cost", "daily", 7, "usd"},
                       {"e", sink::test::numbered_id(2, 9), "cost", "daily", 8, "usd"}};
  directory.killed_agents = {{id(0), "z"}, {id(0), "a"}, {id(1), "\xe2\x9c\x93"}, {id(2), "a"}};

  const auto policies = PolicyBuilder().build(directory, quota::TierTable::built_in());
  CHECK(policies->size() == 2);
  CHECK(policies->find(id(2)) == nullptr);
  const quota::Policy& first = *policies->find(id(0));
  const quota::Policy& second = *policies->find(id(1));
  REQUIRE(first.budgets.size() == 1);
  CHECK(first.budgets[0].type == quota::BudgetType::kCalls);
  CHECK(first.budgets[0].period == quota::BudgetPeriod::kTotal);
  CHECK(first.budgets[0].limit == 6);
  REQUIRE(second.budgets.size() == 1);
  CHECK(second.budgets[0].period == quota::BudgetPeriod::kMonthly);
  CHECK(second.budgets[0].limit == 5'000'000'000);
  CHECK(first.is_killed(quota::agent_fingerprint(id(0), "a")));
  CHECK(first.is_killed(quota::agent_fingerprint(id(0), "z")));
  CHECK_FALSE(first.is_killed(quota::agent_fingerprint(id(0), "\xe2\x9c\x93")));
  CHECK(second.is_killed(quota::agent_fingerprint(id(1), "\xe2\x9c\x93")));
}

namespace {

// Two shards, and what each of them was last given.
struct DirectoryFixture {
  static constexpr std::uint32_t kShards = 2;
  struct Seen {
    std::shared_ptr<const quota::PolicyTable> policies;
    std::uint64_t installs = 0;
    bool on_own_thread = false;
  };

  sink::test::TempFolder folder;
  std::string path = folder.file("kavach.db");
  std::unique_ptr<sink::Store> admin = Sql::must(sink::open_sqlite(path));
  const MintedKey key = mint_key("dev", "first");
  sink::OrgRecord org = Sql::must(admin->create_org("acme", "pro", key.stored));
  Runtime runtime{Runtime::Options{.shards = kShards, .pin = false}};
  std::vector<KeyRing> rings{kShards};
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Seen> seen{kShards};  // guarded by mutex
  std::unique_ptr<Directory> directory;

  void open(std::int64_t poll_us) {
    std::vector<KeyRing*> pointers;
    for (KeyRing& ring : rings) pointers.push_back(&ring);
    auto made = Directory::create(
        runtime, pointers, Sql::must(sink::open_sqlite(path)), quota::TierTable::built_in(),
        [this](ShardId shard, std::shared_ptr<const quota::PolicyTable> policies) {
          const std::lock_guard lock(mutex);
          seen[shard] = {std::move(policies), seen[shard].installs + 1,
                         runtime.shard(shard).on_this_thread()};
          changed.notify_all();
        },
        poll_us);
    REQUIRE(made.has_value());
    directory = std::move(*made);
  }
  void start() {
    runtime.start();
    directory->start();
  }
  ~DirectoryFixture() {
    directory->stop();
    runtime.stop();
  }

  // Waits until `holds` is true of the organization's policy on every shard.
  template <typename Holds>
  bool reaches_all(Holds holds) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(60), [&] {
      return std::all_of(seen.begin(), seen.end(), [&](const Seen& shard) {
        return shard.on_own_thread && holds(*shard.policies->find(org.id));
      });
    });
  }
};

}  // namespace

TEST_CASE_FIXTURE(DirectoryFixture, "every shard has keys and policies before anything runs") {
  open(kMicrosPerSecond);
  for (std::uint32_t i = 0; i < kShards; ++i) {
    CHECK(seen[i].installs == 1);
    CHECK(seen[i].policies == seen[0].policies);
    CHECK(seen[i].policies->find(org.id)->events_per_day == 10'000);
    CHECK(rings[i].table().find(key.stored.digest) != nullptr);
  }
}

TEST_CASE_FIXTURE(DirectoryFixture, "what an administrator changes reaches every shard, on its own thread") {
  open(10 * kMicrosPerMilli);
  start();
  Sql::must(admin->change_org(org.id, {.tier = "max", .agents_max = sink::OwnLimit(4)}));
  CHECK(reaches_all(
      [](const quota::Policy& policy) { return policy.tier == "max" && policy.agents_max == 4; }));
  Sql::must(admin->upsert_budget(org.id, "cost", "daily", 2));
  CHECK(reaches_all([](const quota::Policy& policy) { return policy.budgets.size() == 1; }));
  Sql::must(admin->kill_agent(org.id, "a", ""));
  const std::uint64_t killed = quota::agent_fingerprint(org.id, "a");
  CHECK(reaches_all([killed](const quota::Policy& policy) { return policy.is_killed(killed); }));
  Sql::must(admin->reactivate_agent(org.id, "a"));
  CHECK(reaches_all([killed](const quota::Policy& policy) { return !policy.is_killed(killed); }));
}

TEST_CASE_FIXTURE(DirectoryFixture, "new tiers rebuild the policies at once, without a change in the store") {
  open(3'600 * kMicrosPerSecond);  // no poll will come
  start();
  directory->set_tiers(tiers_of("[pro]\nevents_per_day = 12\n"));
  CHECK(reaches_all([](const quota::Policy& policy) {
    return policy.events_per_day == 12 && policy.agents_max == kUnlimited;
  }));
}

}  // namespace kavach::http
