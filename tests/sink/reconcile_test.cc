// Journals, topic and store compared in memory: what is found missing or doubled, what is excused, and why.
#include "sink/reconcile/reconcile.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "engine/calendar.h"
#include "sink/reconcile/event_list.h"

namespace kavach::sink {
namespace {

constexpr WallMicros kNow = 1'800'000'000 * kMicrosPerSecond;
constexpr Period kPeriod{kNow - kMicrosPerHour, kNow};

Uuid numbered(std::uint8_t kind, std::uint8_t number) {
  Uuid id;
  id.bytes[0] = kind;
  id.bytes[15] = number;
  return id;
}
const Uuid kOrg = numbered(1, 1);
const Uuid kOther = numbered(1, 2);
Uuid id_of(std::uint8_t number) {
  return numbered(9, number);
}

FoundEvent found(std::uint8_t number, bool is_due = true) {
  return {.id = id_of(number),
          .org_id = kOrg,
          .project_id = numbered(2, 1),
          .key = "key",
          .received_at = kNow - kMicrosPerSecond,
          .timestamp = kNow - kMicrosPerSecond,
          .is_due = is_due};
}

// What was done to the places, in order.
using Steps = std::vector<std::string>;

struct FakeJournal final : JournalPlace {
  explicit FakeJournal(Steps& all_steps) : steps(all_steps) {}
  Status note_position() override {
    steps.push_back("note journal");
    return {};
  }
  Status read(const Period&, const FoundVisitor& each) override {
    steps.push_back("read journal");
    if (is_broken) return failure("broken");
    std::for_each(events.begin(), events.end(), each);
    return {};
  }
  std::uint64_t damaged_frames() const override { return damaged; }

  Steps& steps;
  std::vector<FoundEvent> events;
  std::uint64_t damaged = 0;
  bool is_broken = false;
};

struct FakeTopic final : TopicPlace {
  explicit FakeTopic(Steps& all_steps) : steps(all_steps) {}
  Status note_position(const Period&) override {
    steps.push_back("note topic");
    return {};
  }
  WallMicros keeps_since() const override { return kept_since; }
  Result<std::uint64_t> read(const Period&, const FoundVisitor& each) override {
    steps.push_back("read topic");
    std::for_each(events.begin(), events.end(), each);
    return unreadable;
  }
  Result<std::uint64_t> read_letters(const Period&, const FoundVisitor& each) override {
    steps.push_back("read letters");
    std::for_each(letters.begin(), letters.end(), each);
    return 0;
  }

  Steps& steps;
  std::vector<FoundEvent> events, letters;
  std::uint64_t unreadable = 0;
  WallMicros kept_since = 0;
};

struct FakeStore final : StoreAudit {
  explicit FakeStore(Steps& all_steps) : steps(all_steps) {}
  StoreResult<std::uint64_t> journal_position(const Uuid&) override { return 0; }
  StoreResult<std::vector<PartitionPosition>> partition_positions(std::string_view) override {
    return std::vector<PartitionPosition>();
  }
  StoreResult<void> scan_events(WallMicros, WallMicros, const EventVisitor& each) override {
    steps.push_back("read store");
    std::for_each(events.begin(), events.end(), each);
    return {};
  }
  StoreResult<void> scan_doubled_keys(WallMicros, WallMicros, std::int64_t window_us,
                                      const EventVisitor& each) override {
    CHECK(window_us == kMicrosPerDay);
    std::for_each(doubled.begin(), doubled.end(), each);
    return {};
  }
  StoreResult<bool> has_event(const Uuid& id) override {
    ++look_ups;
    return outside.contains(id);
  }
  StoreResult<bool> has_key(const Uuid&, std::string_view key, const Uuid&) override {
    return keys.contains(std::string(key));
  }
  StoreResult<UsageSums> sum_usage(const Uuid& org_id, std::span<const HourRange> hours) override {
    asked[org_id].assign(hours.begin(), hours.end());
    UsageSums sums;
    sums.differ = wrong.contains(org_id);
    return sums;
  }

  Steps& steps;
  std::vector<StoredEvent> events, doubled;
  std::set<Uuid> outside;  // events that only has_event() finds
  std::set<std::string> keys;
  std::set<Uuid> wrong;  // organizations with other roll-ups
  std::map<Uuid, std::vector<HourRange>> asked;
  int look_ups = 0;
};

struct PlacesFixture {
  Steps steps;
  FakeJournal journal{steps};
  FakeTopic topic{steps};
  FakeStore store{steps};
  ReconcileOptions options{.period = kPeriod, .dedup_window_us = kMicrosPerDay};

  void in_store(std::uint8_t number, const Uuid& org = kOrg) {
    store.events.push_back({id_of(number), org, kNow - kMicrosPerSecond});
  }
  Report compare(bool with_topic = true, bool with_store = true) {
    JournalPlace* journals[] = {&journal};
    const auto report = reconcile({.journals = journals,
                                   .topic = with_topic ? &topic : nullptr,
                                   .store = with_store ? &store : nullptr},
                                  options);
    REQUIRE(report.has_value());
    return *report;
  }
  OrgCounts counts(bool with_topic = true) { return compare(with_topic).total; }
};

std::string last_line(const Report& report) {
  const std::string text = report_text(report);
  REQUIRE(text.back() == '\n');
  const std::size_t begin = text.rfind('\n', text.size() - 2) + 1;
  return text.substr(begin, text.size() - begin - 1);
}

TEST_CASE_FIXTURE(PlacesFixture, "positions are noted before anything is read, and the store is read first") {
  compare();
  CHECK(steps ==
        Steps{"note journal", "note topic", "read store", "read letters", "read topic", "read journal"});
}

TEST_CASE_FIXTURE(PlacesFixture, "what is everywhere is clean") {
  for (std::uint8_t i = 0; i < 10; ++i) {
    journal.events.push_back(found(i));
    topic.events.push_back(found(i));
    in_store(i);
  }
  const Report report = compare();
  CHECK(report.is_clean());
  REQUIRE(report.orgs.size() == 1);
  CHECK(report.orgs[0].org_id == kOrg);
  CHECK(report.total.in_journal == 10);
  CHECK(report.total.in_topic == 10);
  CHECK(report.total.in_store == 10);
  CHECK(last_line(report) == "clean");
}

TEST_CASE_FIXTURE(PlacesFixture, "an event that the journal has recycled is missing nowhere") {
  topic.events.push_back(found(1));
  in_store(1);
  in_store(2);
  CHECK(compare().is_clean());
}

TEST_CASE_FIXTURE(PlacesFixture, "an event that is due is missing where it is not") {
  SUBCASE("in the topic") {
    journal.events = {found(1), found(2)};
    topic.events = {found(2)};
    in_store(2);
    const Report report = compare();
    CHECK(report.total.missing_in_topic == 1);
    CHECK(report.total.missing_in_store == 0);
    REQUIRE(report.findings.size() == 1);
    CHECK(report.findings[0].kind == Finding::Kind::kMissingInTopic);
    CHECK(report.findings[0].event_id == id_of(1));
    CHECK(last_line(report) == "1 missing, 0 doubled");
  }
  SUBCASE("in the store, once however often the topic has it") {
    topic.events = {found(1), found(1), found(2)};
    in_store(2);
    const Report report = compare();
    CHECK(report.total.missing_in_store == 1);
    CHECK(report.total.repeated_in_topic == 1);
    CHECK(last_line(report) == "1 missing, 0 doubled");
  }
  SUBCASE("in the store behind a journal without a topic") {
    journal.events = {found(1), found(2)};
    in_store(2);
    CHECK(counts(false).missing_in_store == 1);
  }
}

TEST_CASE_FIXTURE(PlacesFixture, "an event that is not due is on its way, and counts once") {
  SUBCASE("to the topic") {
    journal.events = {found(1, false)};
    CHECK(counts().on_its_way == 1);
  }
  SUBCASE("to the store") {
    journal.events = {found(1)};
    topic.events = {found(1, false), found(1, false)};
    CHECK(counts().on_its_way == 1);
  }
  SUBCASE("also when it was passed before: it was replayed") {
    topic.events = {found(1), found(1, false)};
    topic.letters = {found(1)};
    const OrgCounts all = counts();
    CHECK(all.on_its_way == 1);
    CHECK(all.dead_letters == 0);
    CHECK(all.missing_in_store == 0);
  }
  SUBCASE("to the store without a topic") {
    journal.events = {found(1, false)};
    CHECK(counts(false).on_its_way == 1);
  }
  SUBCASE("unless it is there already") {
    topic.events = {found(1, false)};
    in_store(1);
    CHECK(counts().on_its_way == 0);
  }
  CHECK(compare().is_clean());
}

TEST_CASE_FIXTURE(PlacesFixture, "what is not in the store for a reason is not missing") {
  topic.events = {found(1)};
  SUBCASE("a dead letter") {
    topic.letters = {found(1), found(1)};
    CHECK(counts().dead_letters == 1);
    REQUIRE(compare().findings.size() == 1);
  }
  SUBCASE("its key is another event's") {
    store.keys = {"key"};
    CHECK(counts().duplicates_dropped == 1);
  }
  SUBCASE("it is there, with an id of another time") {
    store.outside = {id_of(1)};
  }
  SUBCASE("it is older than what is kept") {
    options.retained_since = kNow;
    CHECK(counts().past_retention == 1);
  }
  const Report report = compare();
  CHECK(report.total.missing() == 0);
  CHECK(report.is_clean());
}

TEST_CASE_FIXTURE(PlacesFixture, "an event without a key is nobody's duplicate") {
  topic.events = {found(1)};
  topic.events[0].key = {};
  store.keys = {""};
  CHECK(counts().missing_in_store == 1);
}

TEST_CASE_FIXTURE(PlacesFixture, "a dead letter that was stored after all explains nothing") {
  topic.events = {found(1)};
  topic.letters = {found(1)};
  in_store(1);
  CHECK(counts().dead_letters == 0);
}

TEST_CASE_FIXTURE(PlacesFixture, "what the topic may have dropped by age is not missing in it") {
  journal.events = {found(1)};
  topic.kept_since = kNow;
  CHECK(counts().past_retention == 1);
  CHECK(compare().is_clean());
}

TEST_CASE_FIXTURE(PlacesFixture, "rows of one id or one key are doubled, each once") {
  in_store(1);
  in_store(1);
  in_store(2);
  store.doubled = {{id_of(1), kOrg}, {id_of(2), kOrg}};
  const Report report = compare();
  CHECK(report.total.in_store == 2);
  CHECK(report.total.doubled_in_store == 2);
  CHECK_FALSE(report.is_clean());
  CHECK(last_line(report) == "0 missing, 2 doubled");
}

TEST_CASE_FIXTURE(PlacesFixture, "what was accepted at another time is left out") {
  journal.events = {found(1), found(2)};
  journal.events[0].received_at = kPeriod.until;
  journal.events[1].received_at = kPeriod.since - 1;
  CHECK(counts().in_journal == 0);
  journal.events[1].received_at = kPeriod.since;
  CHECK(counts().in_journal == 1);
}

TEST_CASE_FIXTURE(PlacesFixture,
                  "roll-ups are compared in the hours that events touch, and in the period's") {
  const std::int64_t hour_s = kNow / kMicrosPerSecond / 3'600 * 3'600;
  store.events.push_back({id_of(1), kOrg, kNow - 30 * kMicrosPerHour});
  store.events.push_back({id_of(2), kOrg, kNow - 29 * kMicrosPerHour});
  store.wrong = {kOrg};
  in_store(3, kOther);
  const Report report = compare();
  const HourRange own{hour_s - 3'600, hour_s + (kNow % kMicrosPerHour == 0 ? 0 : 3'600)};
  CHECK(store.asked[kOrg] == std::vector<HourRange>{{hour_s - 30 * 3'600, hour_s - 28 * 3'600}, own});
  CHECK(store.asked[kOther] == std::vector<HourRange>{own});
  CHECK(report.roll_ups_differ == 1);
  CHECK(report.orgs[0].roll_ups.has_value());
  CHECK_FALSE(report.orgs[1].roll_ups.has_value());
  CHECK(last_line(report) == "0 missing, 0 doubled, organizations whose roll-ups differ: 1");
  SUBCASE("but not where rows were dropped by age") {
    options.retained_since = (hour_s - 29 * 3'600) * kMicrosPerSecond;
    compare();
    CHECK(store.asked[kOrg][0] == HourRange{hour_s - 29 * 3'600, hour_s - 28 * 3'600});
  }
}

TEST_CASE_FIXTURE(PlacesFixture, "only so many are looked up one by one") {
  for (std::size_t i = 0; i < kSuspectsMax + 5; ++i) {
    FoundEvent event = found(1);
    event.id.bytes[8] = static_cast<std::uint8_t>(i >> 8);
    event.id.bytes[9] = static_cast<std::uint8_t>(i);
    topic.events.push_back(event);
    topic.events.push_back(event);
  }
  store.keys = {"key"};
  const Report report = compare();
  CHECK(store.look_ups == static_cast<int>(kSuspectsMax));
  CHECK(report.total.duplicates_dropped == kSuspectsMax);
  CHECK(report.total.missing_in_store == 5);
  CHECK(report.unchecked == 5);
}

TEST_CASE_FIXTURE(PlacesFixture, "a few findings of each kind are named") {
  for (std::uint8_t i = 0; i < 30; ++i) journal.events.push_back(found(i));
  const Report report = compare();
  CHECK(report.total.missing_in_topic == 30);
  CHECK(report.findings.size() == kFindingsMax);
}

TEST_CASE_FIXTURE(PlacesFixture,
                  "damage that was not carried on is a fault, a record without an event is not") {
  topic.unreadable = 3;
  CHECK(compare().is_clean());
  CHECK(compare().unreadable_records == 3);
  journal.damaged = 2;
  CHECK_FALSE(compare().is_clean());
}

TEST_CASE_FIXTURE(PlacesFixture, "nothing is known when a place cannot be read") {
  journal.is_broken = true;
  JournalPlace* journals[] = {&journal};
  const auto report = reconcile({.journals = journals, .topic = &topic, .store = &store}, options);
  REQUIRE_FALSE(report.has_value());
  CHECK(report.error().message == "broken");
}

TEST_CASE_FIXTURE(PlacesFixture, "without a store nothing is expected of it") {
  journal.events = {found(1), found(2)};
  topic.events = {found(1)};
  const Report report = compare(true, false);
  CHECK(report.total.missing_in_topic == 1);
  CHECK(report.total.missing_in_store == 0);
  CHECK(report_text(report).find("store") == std::string::npos);
  CHECK(report_json(report).find(R"("store":null)") != std::string::npos);
}

TEST_CASE("a list keeps each id once, in order") {
  EventList list;
  for (const std::uint8_t number : std::vector<std::uint8_t>{3, 1, 2, 3, 1, 3})
    list.add(id_of(number), number);
  std::vector<std::uint32_t> repeated;
  list.sort([&](const ListedEvent& event) { repeated.push_back(event.org); });
  CHECK(repeated == std::vector<std::uint32_t>{1, 3, 3});
  CHECK(list.events().size() == 3);
  CHECK(list.has(id_of(2)));
  CHECK_FALSE(list.has(id_of(4)));
}

}  // namespace
}  // namespace kavach::sink
