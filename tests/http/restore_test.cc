// What a node remembers after a start must not depend on how far its store had come: the same history is
// restored for every position of the store, while the journal still has all frames.
#include "http/restore.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <array>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/calendar.h"
#include "http/auth/key_table.h"
#include "quota/limits.h"
#include "sink/journal/frame.h"
#include "tests/sink/journal_fixture.h"
#include "tests/sink/store_fixture.h"

namespace kavach::http {
namespace {

using quota::BudgetPeriod;
using sink::test::kOrg;
using sink::test::kProject;
using sink::test::make_batch;
using sink::test::make_event;
using sink::test::StoreFixture;

constexpr std::int64_t kHour = kMicrosPerHour;
constexpr std::int64_t kMonth = 12 * 57;              // since 1970
const WallMicros kMidnight = start_of_month(kMonth);  // between two days, and two months
const std::int64_t kToday = day_of(kMidnight);

// `events` events of one agent each.
Batch batch_at(WallMicros received_at, std::string_view agent, std::size_t events) {
  static std::uint32_t number = 0;
  static std::deque<std::string> keys;
  std::vector<Event> made;
  for (std::size_t i = 0; i < events; ++i) {
    keys.push_back("key-" + std::to_string(keys.size()));
    made.push_back(make_event(agent, keys.back(), received_at));
  }
  return make_batch(++number, received_at, std::move(made));
}

class History : public sink::test::JournalFixture {
 public:
  explicit History(std::vector<Batch> batches) : batches_(std::move(batches)), journal_(options) {
    for (const Batch& batch : batches_) {
      sink::test::Bytes payload;
      sink::encode_batch(batch, {}, payload);
      REQUIRE(journal_.write(std::move(payload)) == sink::Receipt::kJournal);
    }
  }
  std::size_t size() const { return batches_.size(); }
  const sink::Journal& journal() { return *journal_; }

  // A store that has the first `count` batches.
  void store_up_to(std::size_t count, sink::Store& store) {
    for (std::size_t i = 0; i < count; ++i)
      REQUIRE(store.apply(std::span(&batches_[i], 1), journal_->id(), i + 1).has_value());
  }

 private:
  std::vector<Batch> batches_;
  sink::test::RunningJournal journal_;
};

// A node of two shards after its start.
struct Memory {
  Memory(sink::Store& store, History& history, WallMicros now) {
    const std::array<HomeShard, 2> shards{HomeShard{tables[0], ledgers[0]}, HomeShard{tables[1], ledgers[1]}};
    const Status restored =
        restore(store, history.journal(), hasher, shards,
                {.journal_directory = history.options.directory, .dedup_window_us = 168 * kHour, .now = now});
    if (!restored) FAIL(restored.error().message);
  }
  quota::OrgLedger& org() { return ledgers[home].org(kOrg); }
  bool is_active(std::string_view agent, WallMicros now) {
    return org().roster.contains(quota::agent_fingerprint(kOrg, agent), now);
  }

  const std::uint32_t home = home_shard(kOrg, 2);
  quota::DedupHasher hasher{1};
  std::array<quota::LocalFleet, 2> fleets;
  std::array<quota::Ledger, 2> ledgers{quota::Ledger({}, fleets[0]), quota::Ledger({}, fleets[1])};
  std::array<quota::DedupTable, 2> tables{quota::DedupTable({.window_hours = 168, .keys_max = 100}),
                                          quota::DedupTable({.window_hours = 168, .keys_max = 100})};
};

quota::Usage usage_of_events(std::int64_t count) {
  quota::Usage sum;
  const Event event = make_event("a", "", 0);
  for (std::int64_t i = 0; i < count; ++i) sum += quota::usage_of(event);
  return sum;
}

TEST_CASE("wherever the store stands, the same use, agents and keys are remembered") {
  History history({
      batch_at(kMidnight - 40 * 24 * kHour, "old", 5),
      batch_at(kMidnight - kHour, "a", 2),
      batch_at(kMidnight + 1, "b", 4),
      batch_at(kMidnight - 1, "a", 1),  // by a clock that was behind
      batch_at(kMidnight + 2, "b", 3),
  });
  const WallMicros now = kMidnight + kHour;
  for (std::size_t stored = 0; stored <= history.size(); ++stored) {
    CAPTURE(stored);
    StoreFixture fixture;
    history.store_up_to(stored, *fixture.store);
    Memory memory(*fixture.store, history, now);
    const quota::OrgLedger& org = memory.org();
    CHECK(org.day == kToday);
    CHECK(org.spent == 7);
    CHECK(org.past_day == kToday - 1);
    CHECK(org.past_spent == 3);
    CHECK(org.periods == std::array<std::int64_t, 3>{kToday, kMonth, 0});
    CHECK(org.own[0] == usage_of_events(7));
    CHECK(org.own[1] == usage_of_events(7));
    CHECK(org.own[2] == usage_of_events(15));
    CHECK(org.past_own[0] == usage_of_events(3));
    CHECK(org.past_own[1] == usage_of_events(3));
    CHECK(memory.is_active("a", now));
    CHECK(memory.is_active("b", now));
    CHECK(!memory.is_active("old", now));
    CHECK(memory.ledgers[1 - memory.home].org_count() == 0);
    CHECK(memory.tables[memory.home].size() >= 10);  // the oldest five are beyond the window
  }
}

TEST_CASE("a day that had begun before the clock was set back is remembered beside today") {
  History history({
      batch_at(kMidnight - kHour, "a", 2),
      batch_at(kMidnight + 1, "a", 3),
  });
  for (std::size_t stored = 0; stored <= history.size(); ++stored) {
    CAPTURE(stored);
    StoreFixture fixture;
    history.store_up_to(stored, *fixture.store);
    Memory memory(*fixture.store, history, kMidnight - kHour / 2);
    quota::OrgLedger& org = memory.org();
    quota::turn_day(org, kToday - 1);
    quota::turn_period(org, BudgetPeriod::kDaily, kToday - 1);
    quota::turn_period(org, BudgetPeriod::kMonthly, kMonth - 1);
    CHECK(org.spent == 2);
    CHECK(org.own[0] == usage_of_events(2));
    CHECK(org.own[1] == usage_of_events(2));
    quota::turn_day(org, kToday);
    quota::turn_period(org, BudgetPeriod::kDaily, kToday);
    CHECK(org.spent == 3);
    CHECK(org.own[0] == usage_of_events(3));
    CHECK(org.own[2] == usage_of_events(5));
  }
}

TEST_CASE("what the last 60 seconds had of the burst is not there again") {
  const WallMicros now = kMidnight + kHour;
  History history({
      batch_at(now - 70 * kMicrosPerSecond, "a", 5),
      batch_at(now - 59 * kMicrosPerSecond, "a", 2),
      batch_at(now - kMicrosPerSecond, "b", 4),
  });
  for (std::size_t stored = 0; stored <= history.size(); ++stored) {
    CAPTURE(stored);
    StoreFixture fixture;
    history.store_up_to(stored, *fixture.store);
    // The store knows its keys by project.
    fixture.sql.execute("PRAGMA foreign_keys = OFF");
    fixture.sql.execute(
        fmt::format(
            "INSERT INTO api_keys (id, kind, org_id, project_id, name, prefix, key_hash, created_at_us) "
            "VALUES ('{}', 'ak', '{}', '{}', 'k', 'ak_dev_00000000', '{}', 0)",
            sink::test::numbered_id(9, 1).text(), kOrg.text(), kProject.text(), std::string(64, 'a'))
            .c_str());
    Memory memory(*fixture.store, history, now);
    quota::Ledger& ledger = memory.ledgers[memory.home];
    std::vector<quota::Policy> policies(1);
    policies[0].org = kOrg;
    policies[0].burst_per_minute = 10;
    ledger.install(std::make_shared<quota::PolicyTable>(std::move(policies)));
    const auto left_at = [&](WallMicros wall) {
      quota::Take take;
      quota::Refusal refusal;
      std::int64_t left = 0;
      while (ledger.reserve(memory.org(), 1, {.wall = wall, .mono = wall}, take, refusal) ==
             quota::Ledger::Outcome::kTaken)
        ++left;
      CHECK(refusal.reason == quota::Reason::kBurst);
      return left;
    };
    CHECK(left_at(now) == 4);
    CHECK(left_at(now + 2 * kMicrosPerSecond) == 2);
  }
}

TEST_CASE("the use that another node's journal brought is not this node's") {
  History history({batch_at(kMidnight, "a", 2)});
  StoreFixture fixture;
  const Batch foreign = batch_at(kMidnight, "b", 3);
  REQUIRE(fixture.store->apply(std::span(&foreign, 1), sink::test::kJournal, 1).has_value());
  Memory memory(*fixture.store, history, kMidnight + kHour);
  CHECK(memory.org().spent == 2);
  CHECK(memory.is_active("b", kMidnight + kHour));  // places are the organization's, on whatever node
}

}  // namespace
}  // namespace kavach::http
