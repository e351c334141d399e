// Delivery queue: who has a delivery, for how long, and what its alert event then says.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "sink/store/control/alert_events.h"
#include "sink/store/control/delivery_queue.h"
#include "tests/sink/store_fixture.h"

namespace kavach::sink {
namespace {

using namespace kavach::sink::test;
using Kind = DeliveryOutcome::Kind;

constexpr std::int64_t kLease = 60 * kMicrosPerSecond;
const std::string kOrgText = kOrg.text();

struct QueueFixture : StoreFixture {
  std::unique_ptr<ControlStore> control = open_control();

  // Of an alert event of its own.
  void add(const std::string& body) {
    auto done = control->in_transaction([&]() -> StoreResult<void> {
      AlertEvent event;
      event.channel = "slack";
      auto id = add_alert_event(*control, kOrgText, event);
      if (!id) return id.error();
      Delivery delivery;
      delivery.org_id = kOrgText;
      delivery.channel = "slack";
      delivery.alert_id = *id;
      delivery.target_sealed = "sealed";
      delivery.secret_sealed = "sealed too";
      delivery.body = body;
      return add_delivery(*control, delivery);
    });
    REQUIRE(done.has_value());
  }
  std::vector<Delivery> claim(std::int64_t count = 10) {
    return Sql::must(claim_deliveries(*control, count, kLease));
  }
  void settle(const Delivery& delivery, const DeliveryOutcome& outcome) {
    REQUIRE(settle_delivery(*control, delivery, outcome).has_value());
  }
  std::string event_of(const Delivery& delivery) {
    return sql.text("SELECT delivered || '|' || COALESCE(error, '') FROM alert_events WHERE id = '" +
                    delivery.alert_id + "'");
  }
};

TEST_CASE_FIXTURE(QueueFixture, "what was added first is claimed first") {
  std::string added;
  for (char body = 'a'; body <= 'p'; ++body) {
    added += body;
    add(std::string(1, body));
    clock.now += kMicrosPerSecond;
  }
  // Rewritten, a row may lie behind those that came after it.
  settle(claim(1).front(), {.kind = Kind::kGiveBack, .error = {}, .next_at = clock.now});
  std::string claimed;
  for (const Delivery& delivery : claim(100)) claimed += delivery.body;
  CHECK(claimed == added);
}

TEST_CASE_FIXTURE(QueueFixture, "what is claimed is its claimer's until the lease ends") {
  CHECK(claim().empty());
  add("one");
  add("two");
  clock.now += 1;
  const auto first = claim(1);
  REQUIRE(first.size() == 1);
  CHECK(first[0].body == "one");
  CHECK(first[0].attempts == 1);
  CHECK(first[0].target_sealed == "sealed");
  CHECK(first[0].secret_sealed == "sealed too");
  CHECK(first[0].org_id == kOrgText);
  const auto second = claim();
  REQUIRE(second.size() == 1);
  CHECK(second[0].body == "two");
  CHECK(claim().empty());
  CHECK(Sql::must(pending_deliveries(*control)) == 2);
  clock.now += kLease;
  const auto again = claim();
  REQUIRE(again.size() == 2);
  CHECK(again[0].attempts == 2);
}

TEST_CASE_FIXTURE(QueueFixture, "who claims hears whether the organization was deleted") {
  add("one");
  sql.execute(("INSERT INTO organizations (id, name, created_at_us, updated_at_us) VALUES ('" + kOrgText +
               "', 'o', 0, 0)")
                  .c_str());
  CHECK_FALSE(claim().at(0).org_is_deleted);
  sql.execute("UPDATE organizations SET deleted_at_us = 1");
  clock.now += kLease;
  CHECK(claim().at(0).org_is_deleted);
}

TEST_CASE_FIXTURE(QueueFixture, "how a try ended is said of the delivery and of its alert") {
  add("one");
  auto claimed = claim();
  settle(claimed[0], {.kind = Kind::kRetry, .status = 503, .error = "away", .next_at = clock.now + 5});
  CHECK(event_of(claimed[0]) == "0|away");
  CHECK(claim().empty());
  clock.now += 5;
  claimed = claim();
  REQUIRE(claimed.size() == 1);
  CHECK(claimed[0].attempts == 2);
  settle(claimed[0], {.kind = Kind::kDelivered, .status = 200, .error = {}, .next_at = clock.now});
  CHECK(event_of(claimed[0]) == "1|");
  clock.now += 10 * kLease;
  CHECK(claim().empty());
  CHECK(Sql::must(pending_deliveries(*control)) == 0);
  // Whoever had it before comes too late to change that.
  settle(claimed[0], {.kind = Kind::kFailed, .status = 404, .error = "gone", .next_at = clock.now});
  CHECK(event_of(claimed[0]) == "1|");
}

TEST_CASE_FIXTURE(QueueFixture, "a failure is for good, a give-back is no try") {
  add("one");
  auto claimed = claim();
  settle(claimed[0], {.kind = Kind::kGiveBack, .error = {}, .next_at = clock.now + 7});
  CHECK(event_of(claimed[0]) == "0|");
  CHECK(claim().empty());
  clock.now += 7;
  claimed = claim();
  REQUIRE(claimed.size() == 1);
  CHECK(claimed[0].attempts == 1);
  settle(claimed[0],
         {.kind = Kind::kFailed, .status = 404, .error = "the target answered 404", .next_at = clock.now});
  CHECK(event_of(claimed[0]) == "0|the target answered 404");
  clock.now += 10 * kLease;
  CHECK(claim().empty());
}

TEST_CASE_FIXTURE(QueueFixture, "two connections share what is due") {
  for (int i = 0; i < 10; ++i) add(std::to_string(i));
  const auto other = open_control();
  const auto mine = claim(4);
  const auto theirs = Sql::must(claim_deliveries(*other, 10, kLease));
  CHECK(mine.size() == 4);
  CHECK(theirs.size() == 6);
}

TEST_CASE_FIXTURE(QueueFixture, "what is old is pruned, a rule that fires once for ever stays fired") {
  add("old");
  sql.execute(
      "INSERT INTO alert_fired (config_id, scope_key, period_key, fired_at_us) VALUES ('c', 's', 'total', "
      "1), "
      "('c', 's', '2020-01-01', 1)");
  clock.now += 10 * kMicrosPerSecond;
  add("new");
  CHECK(Sql::must(prune_alerts(*control, clock.now, 100)) == 3);
  CHECK(sql.text("SELECT body FROM deliveries") == "new");
  CHECK(sql.integer("SELECT COUNT(*) FROM alert_events") == 1);
  CHECK(sql.text("SELECT period_key FROM alert_fired") == "total");
  CHECK(Sql::must(prune_alerts(*control, clock.now, 100)) == 0);
}

}  // namespace
}  // namespace kavach::sink
