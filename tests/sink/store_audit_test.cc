// What the audit finds in a database: periods by ids, keys that are stored twice, and sums that do not agree.
#include "sink/store/audit.h"

#include <algorithm>
#include <set>

#include "engine/calendar.h"
#include "tests/sink/store_fixture.h"

namespace kavach::sink::test {
namespace {

struct AuditFixture : StoreFixture {
  std::unique_ptr<StoreAudit> audit = open_audit();
  Random random{1};

  std::unique_ptr<StoreAudit> open_audit() const {
#ifdef KAVACH_TEST_POSTGRES
    return Sql::must(audit_postgres(url, 10'000));
#else
    return Sql::must(audit_sqlite(path));
#endif
  }

  // Stores a batch as a node makes it, and returns its id.
  Uuid stored(WallMicros received_at, std::vector<Event> events) {
    Batch batch = make_batch(0, received_at, std::move(events));
    batch.id = make_uuid7(received_at, random);
    apply(batch, ++seq);
    return batch.id;
  }
  std::set<Uuid> of_period(WallMicros since, WallMicros until) {
    std::set<Uuid> ids;
    REQUIRE(audit
                ->scan_events(since, until,
                              [&](const StoredEvent& event) {
                                CHECK(event.org_id == kOrg);
                                CHECK(event.timestamp == clock.now);
                                ids.insert(event.id);
                              })
                .has_value());
    return ids;
  }
  std::set<Uuid> doubled(WallMicros since, WallMicros until, std::int64_t window_us) {
    std::set<Uuid> ids;
    REQUIRE(audit
                ->scan_doubled_keys(since, until, window_us,
                                    [&](const StoredEvent& event) { ids.insert(event.id); })
                .has_value());
    return ids;
  }
  void set_key(const Uuid& id, const std::string& key) {
    sql.execute(("UPDATE events SET dedup_key = '" + key + "' WHERE id = '" + id.text() + "'").c_str());
  }
  std::vector<HourRange> hour_of(WallMicros t) const {
    const std::int64_t hour_s = t / kMicrosPerHour * 3'600;
    return {{hour_s, hour_s + 3'600}};
  }

  std::uint64_t seq = 0;
};

}  // namespace

TEST_CASE_FIXTURE(AuditFixture, "a period is what was accepted in it, to the microsecond") {
  const Uuid early = stored(clock.now - 2, {make_event("a", "", clock.now)});
  const Uuid first = stored(clock.now - 1, {make_event("a", "", clock.now), make_event("b", "", clock.now)});
  const Uuid last = stored(clock.now + 1'000'499, {make_event("a", "", clock.now)});
  stored(clock.now + 1'000'500, {make_event("a", "", clock.now)});
  CHECK(of_period(clock.now - 1, clock.now + 1'000'500) ==
        std::set<Uuid>{event_id(first, 0), event_id(first, 1), last});
  CHECK(of_period(clock.now - 2, clock.now - 1) == std::set<Uuid>{early});
  CHECK(of_period(0, clock.now - 2).empty());
  CHECK(Sql::must(audit->has_event(event_id(first, 1))));
  CHECK_FALSE(Sql::must(audit->has_event(event_id(first, 2))));
}

TEST_CASE_FIXTURE(AuditFixture, "positions are read and stay as they are") {
  stored(clock.now, {make_event("a", "", clock.now)});
  CHECK(Sql::must(audit->journal_position(kJournal)) == 1);
  CHECK(Sql::must(audit->journal_position(kOrg)) == 0);
  CHECK(Sql::must(audit->partition_positions("events")).empty());
  PartitionPosition at = Sql::must(store->claim_partition("events", 3));
  at.next_offset = 17;
  Sql::must(store->apply_at({}, kJournal, {&at, 1}));
  Sql::must(store->claim_partition("others", 1));
  for (int i = 0; i < 2; ++i) {
    const auto found = Sql::must(audit->partition_positions("events"));
    REQUIRE(found.size() == 1);
    CHECK(found[0].partition == 3);
    CHECK(found[0].generation == 1);
    CHECK(found[0].next_offset == 17);
  }
}

TEST_CASE_FIXTURE(AuditFixture, "a key that two rows have is doubled within the window, and not beyond it") {
  const Uuid first = stored(clock.now, {make_event("a", "one", clock.now)});
  const Uuid second = stored(clock.now + kMicrosPerHour, {make_event("a", "two", clock.now)});
  CHECK(doubled(0, clock.now + kMicrosPerDay, kRememberForEver).empty());
  set_key(second, "one");
  CHECK(doubled(0, clock.now + kMicrosPerDay, kRememberForEver) == std::set<Uuid>{second});
  CHECK(doubled(0, clock.now + kMicrosPerDay, kMicrosPerHour) == std::set<Uuid>{second});
  CHECK(doubled(0, clock.now + kMicrosPerDay, kMicrosPerHour - 1).empty());
  // The first is in front of the period: its key is remembered.
  CHECK(doubled(clock.now + 1, clock.now + kMicrosPerDay, kMicrosPerHour) == std::set<Uuid>{second});
  CHECK(doubled(clock.now + 1, clock.now + kMicrosPerDay, kMicrosPerHour - 1).empty());
  CHECK(doubled(0, clock.now + 1, kRememberForEver).empty());
  CHECK(first != second);
}

TEST_CASE_FIXTURE(AuditFixture, "events without a key are nobody's doubles") {
  stored(clock.now, {make_event("a", "", clock.now), make_event("a", "", clock.now)});
  CHECK(doubled(0, clock.now + 1, kRememberForEver).empty());
}

TEST_CASE_FIXTURE(AuditFixture, "a dropped event's key leads to the event that has it") {
  const Uuid kept = stored(clock.now, {make_event("a", "one", clock.now)});
  const Uuid dropped = stored(clock.now + 5, {make_event("a", "one", clock.now)});
  CHECK_FALSE(Sql::must(audit->has_event(dropped)));
  CHECK(Sql::must(audit->has_key(kProject, "one", dropped)));
  CHECK_FALSE(Sql::must(audit->has_key(kProject, "one", kept)));
  CHECK_FALSE(Sql::must(audit->has_key(kOrg, "one", dropped)));
  CHECK_FALSE(Sql::must(audit->has_key(kProject, "two", dropped)));
  // A key that is remembered of a row that is gone explains nothing.
  sql.execute("DELETE FROM events");
  CHECK_FALSE(Sql::must(audit->has_key(kProject, "one", dropped)));
}

TEST_CASE_FIXTURE(AuditFixture, "roll-ups are compared with what the rows add up to") {
  stored(clock.now, {make_event("a", "", clock.now), make_event("b", "", clock.now)});
  stored(clock.now, {make_event("a", "", clock.now - kMicrosPerHour)});
  auto sums = Sql::must(audit->sum_usage(kOrg, hour_of(clock.now)));
  const UsageSum two{.events = 2, .cost = 3'000'000, .input_tokens = 200, .output_tokens = 40};
  CHECK_FALSE(sums.differ);
  CHECK(sums.events == two);
  CHECK(sums.hourly == two);
  CHECK(sums.by_dimension == two);
  sql.execute("UPDATE usage_hourly_dim SET output_tokens = output_tokens + 1 WHERE agent_name = 'b'");
  sums = Sql::must(audit->sum_usage(kOrg, hour_of(clock.now)));
  CHECK(sums.differ);
  CHECK(sums.by_dimension.output_tokens == 41);
  CHECK_FALSE(Sql::must(audit->sum_usage(kOrg, hour_of(clock.now - kMicrosPerHour))).differ);
  CHECK(Sql::must(audit->sum_usage(kProject, hour_of(clock.now))).events == UsageSum{});
}

TEST_CASE_FIXTURE(AuditFixture, "two hours whose faults cancel each other differ") {
  stored(clock.now, {make_event("a", "", clock.now), make_event("a", "", clock.now - 2 * kMicrosPerHour)});
  sql.execute(
      "UPDATE usage_hourly SET events = (SELECT CASE WHEN usage_hourly.hour_s = MAX(hour_s) THEN 2 ELSE 0 "
      "END FROM usage_hourly AS all_hours)");
  std::vector<HourRange> hours = hour_of(clock.now - 2 * kMicrosPerHour);
  hours.push_back(hour_of(clock.now)[0]);
  const auto sums = Sql::must(audit->sum_usage(kOrg, hours));
  CHECK(sums.hourly == sums.events);
  CHECK(sums.differ);
}

TEST_CASE_FIXTURE(AuditFixture, "sums beyond an int64 saturate as roll-ups do") {
  Event huge = make_event("a", "", clock.now);
  huge.cost = std::numeric_limits<std::int64_t>::max() - 1;
  huge.input_tokens = std::numeric_limits<std::int64_t>::max();
  stored(clock.now, {huge, huge});
  stored(clock.now, {huge});
  const auto sums = Sql::must(audit->sum_usage(kOrg, hour_of(clock.now)));
  CHECK_FALSE(sums.differ);
  CHECK(sums.events.cost == std::numeric_limits<std::int64_t>::max());
}

#ifdef KAVACH_TEST_POSTGRES
TEST_CASE_FIXTURE(AuditFixture, "an id may come with two times, and is seen twice") {
  const Uuid id = stored(clock.now, {make_event("a", "", clock.now)});
  sql.execute(
      "INSERT INTO events (id, org_id, project_id, ingest_system, ts_us, received_at_us, agent_name, "
      "provider, "
      "model, input_tokens, output_tokens, cost_nano, cost_source) SELECT id, org_id, project_id, "
      "ingest_system, "
      "ts_us + 1, received_at_us, agent_name, provider, model, 0, 0, 0, cost_source FROM events");
  int seen = 0;
  REQUIRE(audit
              ->scan_events(clock.now, clock.now + 1,
                            [&](const StoredEvent& event) {
                              CHECK(event.id == id);
                              ++seen;
                            })
              .has_value());
  CHECK(seen == 2);
}
#else
TEST_CASE("an audit makes no database") {
  const TempFolder folder;
  CHECK_FALSE(audit_sqlite(folder.file("none.db")).has_value());
  CHECK_FALSE(std::filesystem::exists(folder.file("none.db")));
}
#endif

}  // namespace kavach::sink::test
