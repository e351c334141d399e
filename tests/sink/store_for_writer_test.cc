// The SQL store as the writer uses it: who claims a partition is the only one that stores its events, and
// events of several nodes in one transaction count for the node that took them.
#include "sink/writer/store_for_writer.h"

#include "tests/sink/store_fixture.h"

namespace kavach::sink::test {
namespace {

constexpr const char* kTopic = "events";
const Uuid kOther = numbered_id(1, 2);

struct Fixture : StoreFixture {
  std::unique_ptr<WriterStore> writer = store_for_writer(open(kRememberForEver), 0, clock);

  std::vector<StoredPosition> claim(WriterStore& by) {
    const std::int32_t partitions[] = {0, 1};
    auto claimed = by.claim(kTopic, partitions);
    REQUIRE(claimed.has_value());
    return *claimed;
  }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture,
                  "positions begin at the start, and are those of the last transaction for the next claim") {
  auto positions = claim(*writer);
  CHECK(positions[0].next_offset == 0);
  positions[0].next_offset = 7;
  const Batch batches[] = {make_batch(1, clock.now, {make_event("a", "k", clock.now)})};
  const Uuid nodes[] = {kJournal};
  const auto outcome = writer->apply(kTopic, batches, nodes, std::span(positions).first(1));
  REQUIRE(outcome.has_value());
  CHECK(outcome->stored == 1);

  auto next = store_for_writer(open(kRememberForEver), 0, clock);
  const auto later = claim(*next);
  CHECK(later[0].next_offset == 7);
  CHECK(later[1].next_offset == 0);
  CHECK(later[0].generation > positions[0].generation);
}

TEST_CASE_FIXTURE(Fixture, "who was fenced off stores nothing") {
  auto positions = claim(*writer);
  auto next = store_for_writer(open(kRememberForEver), 0, clock);
  claim(*next);
  positions[1].next_offset = 3;
  const Batch batches[] = {make_batch(1, clock.now, {make_event("a", "k", clock.now)}),
                           make_batch(2, clock.now, {make_event("a", "l", clock.now)})};
  const Uuid nodes[] = {kJournal, kOther};
  const auto outcome = writer->apply(kTopic, batches, nodes, positions);
  REQUIRE_FALSE(outcome.has_value());
  CHECK(outcome.error().error == WriteError::kFenced);
  CHECK(sql.integer("SELECT COUNT(*) FROM events") == 0);
}

TEST_CASE_FIXTURE(Fixture, "events count for the node that took them, once, also when they come again") {
  auto positions = claim(*writer);
  positions[0].next_offset = 2;
  const Batch batches[] = {
      make_batch(1, clock.now, {make_event("a", "k", clock.now)}), make_batch(2, clock.now, {}),
      make_batch(3, clock.now, {make_event("b", "l", clock.now), make_event("b", "m", clock.now)})};
  const Uuid nodes[] = {kJournal, kOther, kOther};
  for (const std::uint64_t stored : {3U, 0U}) {
    const auto outcome = writer->apply(kTopic, batches, nodes, positions);
    REQUIRE(outcome.has_value());
    CHECK(outcome->stored == stored);
    CHECK(outcome->duplicates == 3 - stored);
  }
  const auto events_of = [&](const Uuid& node) {
    return sql.integer("SELECT SUM(events) FROM node_usage WHERE period = 'total' AND node = '" +
                       node.text() + "'");
  };
  CHECK(events_of(kJournal) == 1);
  CHECK(events_of(kOther) == 2);
  CHECK(sql.integer("SELECT next_offset FROM partition_positions WHERE partition = 0") == 2);
}

TEST_CASE_FIXTURE(Fixture,
                  "minutes that are kept no longer go while events are stored, without a window, too") {
  auto positions = claim(*writer);
  const Batch then = make_batch(1, clock.now, {make_event("a", "k", clock.now)});
  const Uuid nodes[] = {kJournal};
  REQUIRE(writer->apply(kTopic, {&then, 1}, nodes, positions).has_value());
  clock.now += 72 * kMicrosPerHour;
  const Batch later = make_batch(2, clock.now, {make_event("a", "l", clock.now)});
  REQUIRE(writer->apply(kTopic, {&later, 1}, nodes, positions).has_value());
  CHECK(sql.integer("SELECT COUNT(*) FROM usage_minute") == 1);
  CHECK(sql.integer("SELECT COUNT(*) FROM dedup_keys") == 2);
}

}  // namespace kavach::sink::test
