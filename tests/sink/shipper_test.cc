// The shipper between a real journal and a real SQLite file; where the store has to fail, a store stands in
// between that fails on command.
#include "sink/shipper.h"

#include <doctest/doctest.h>

#include <chrono>
#include <deque>
#include <functional>
#include <thread>

#include "sink/journal/frame.h"
#include "tests/sink/journal_fixture.h"
#include "tests/sink/store_fixture.h"

namespace kavach::sink::test {
namespace {

constexpr std::int64_t kPatience = 60 * kMicrosPerSecond;
constexpr std::int64_t kWindow = 168 * kMicrosPerHour;

void wait_until(const std::function<bool()>& reached) {
  for (int i = 0; i < 60'000; ++i) {
    if (reached()) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  FAIL("not reached within a minute");
}

// What the test decides and sees of the store's transactions. Any thread.
struct StoreControl {
  std::atomic<int> failures_left{0};
  std::atomic<bool> failures_are_retryable{true};
  std::atomic<int> applies{0};
  std::atomic<std::uint64_t> most_events{0};  // of one transaction

  void fail_for_ever() { failures_left = std::numeric_limits<int>::max(); }
};

// Hands every call on; apply() fails as often as it is told to.
class ControlledStore final : public Store {
 public:
  ControlledStore(std::unique_ptr<Store> store, StoreControl& control)
      : store_(std::move(store)), control_(control) {}

  StoreResult<ApplyOutcome> apply(std::span<const Batch> batches, const Uuid& journal_id,
                                  std::uint64_t seq) override {
    ++control_.applies;
    std::uint64_t events = 0;
    for (const Batch& batch : batches) events += batch.events.size();
    control_.most_events = std::max(control_.most_events.load(), events);
    if (control_.failures_left > 0) {
      --control_.failures_left;
      return StoreFailure("told to fail", control_.failures_are_retryable);
    }
    return store_->apply(batches, journal_id, seq);
  }
  StoreResult<std::uint64_t> position(const Uuid& journal_id) override {
    return store_->position(journal_id);
  }
  StoreResult<PartitionPosition> claim_partition(std::string_view topic, std::int32_t partition) override {
    return store_->claim_partition(topic, partition);
  }
  StoreResult<ApplyOutcome> apply_at(std::span<const Batch> batches, const Uuid& node,
                                     std::span<const PartitionPosition> positions) override {
    return store_->apply_at(batches, node, positions);
  }
  void set_usage_listener(UsageListener listener) override {
    store_->set_usage_listener(std::move(listener));
  }
  StoreResult<std::uint64_t> prune(std::int64_t dedup_before_us, std::uint64_t rows_max) override {
    return store_->prune(dedup_before_us, rows_max);
  }
  StoreResult<std::uint64_t> directory_version() override { return store_->directory_version(); }
  StoreResult<Directory> load_directory() override { return store_->load_directory(); }
  StoreResult<void> record_key_use(std::span<const KeyUse> uses) override {
    return store_->record_key_use(uses);
  }
  StoreResult<void> record_rejections(std::span<const RejectedAgent> rejected) override {
    return store_->record_rejections(rejected);
  }
  StoreResult<void> scan_dedup(std::int64_t since_us, const DedupVisitor& each) override {
    return store_->scan_dedup(since_us, each);
  }
  StoreResult<void> scan_usage(const Uuid& node, std::int64_t day, std::int64_t month,
                               const UsageVisitor& each) override {
    return store_->scan_usage(node, day, month, each);
  }
  StoreResult<void> scan_agents(WallMicros since_us, const AgentVisitor& each) override {
    return store_->scan_agents(since_us, each);
  }
  StoreResult<OrgDetails> show_org(const Uuid& org_id) override { return store_->show_org(org_id); }
  StoreResult<OrgDetails> change_org(const Uuid& org_id, const OrgChange& change) override {
    return store_->change_org(org_id, change);
  }
  StoreResult<BudgetRecord> upsert_budget(const Uuid& org_id, std::string_view type, std::string_view period,
                                          double limit) override {
    return store_->upsert_budget(org_id, type, period, limit);
  }
  StoreResult<BudgetRecord> delete_budget(const Uuid& org_id, std::string_view type,
                                          std::string_view period) override {
    return store_->delete_budget(org_id, type, period);
  }
  StoreResult<std::vector<BudgetRecord>> list_budgets(const Uuid& org_id) override {
    return store_->list_budgets(org_id);
  }
  StoreResult<AgentState> kill_agent(const Uuid& org_id, std::string_view name,
                                     std::string_view reason) override {
    return store_->kill_agent(org_id, name, reason);
  }
  StoreResult<AgentState> reactivate_agent(const Uuid& org_id, std::string_view name) override {
    return store_->reactivate_agent(org_id, name);
  }
  StoreResult<OrgRecord> create_org(std::string_view name, std::string_view tier,
                                    const NewKey& first_key) override {
    return store_->create_org(name, tier, first_key);
  }
  StoreResult<KeySummary> create_key(const Uuid& org_id, const NewKey& key) override {
    return store_->create_key(org_id, key);
  }
  StoreResult<KeySummary> revoke_key(std::string_view id_or_prefix) override {
    return store_->revoke_key(id_or_prefix);
  }
  StoreResult<void> ping() override { return store_->ping(); }

 private:
  std::unique_ptr<Store> store_;
  StoreControl& control_;
};

struct ShipperFixture : JournalFixture {
  ShipperFixture() {
    ship.batch_delay_us = 0;
    ship.dedup_window_us = kWindow;
    ship.journal_directory = options.directory;
    options.segment_bytes = 8 << 10;
    std::filesystem::create_directory(options.directory);
    open_journal_again();
  }

  void open_journal_again() {
    journal.reset();
    journal = std::make_unique<RunningJournal>(options);
  }

  Result<std::unique_ptr<Shipper>> create() {
    auto sqlite = Sql::must(open_sqlite(path, system_clock(), kWindow));
    return Shipper::create(**journal, std::make_unique<ControlledStore>(std::move(sqlite), control), ship);
  }
  std::unique_ptr<Shipper> start() {
    auto shipper = create();
    if (!shipper) FAIL(shipper.error().message);
    (*shipper)->start();
    return std::move(*shipper);
  }
  std::string refusal() {
    const auto shipper = create();
    return shipper ? "" : shipper.error().message;
  }

  // One frame of one batch. Its number is also that of its frame, if it is the only one that writes.
  void write_batch(std::uint32_t number, std::vector<Event> events, WallMicros received_at = 0) {
    const Batch batch =
        make_batch(number, received_at != 0 ? received_at : system_clock().wall(), std::move(events));
    Bytes payload;
    encode_batch(batch, {}, payload);
    REQUIRE(journal->write(std::move(payload)) == Receipt::kJournal);
  }
  // Batches of one event each, with a key of its own.
  void write_batches(std::uint32_t first, std::uint32_t last) {
    for (std::uint32_t n = first; n <= last; ++n) {
      const std::string key = numbered_id(9, n).text();
      write_batch(n, {make_event("agent", key, system_clock().wall())});
    }
  }

  std::uint64_t position() {
    const auto store = Sql::must(open_sqlite(path));
    return Sql::must(store->position((*journal)->id()));
  }
  std::int64_t stored_events() { return Sql(path).integer("SELECT COUNT(*) FROM events"); }
  void wait_until_stored() {
    wait_until([&] { return position() == (*journal)->durable_seq(); });
  }

  std::string path = folder.file("kavach.db");
  StoreControl control;
  ShipperOptions ship;
  std::unique_ptr<RunningJournal> journal;
};

}  // namespace

TEST_CASE_FIXTURE(ShipperFixture, "what is durable is stored once, and lets the journal go") {
  const auto shipper = start();
  write_batches(1, 300);
  wait_until_stored();
  CHECK(stored_events() == 300);
  wait_until([&] { return (*journal)->backlog_bytes() == 0; });
  CHECK((*journal)->released_seq() == 300);
  CHECK(segment_paths(options.directory).size() == 1);
  shipper->stop(0);
  CHECK(shipper->healthy());
  CHECK(shipper->metrics().events.value() == 300);
  CHECK(shipper->metrics().duplicates.value() == 0);
  CHECK(shipper->metrics().position.value() == 300);
}

TEST_CASE_FIXTURE(ShipperFixture, "many batches of one transaction keep their texts apart") {
  for (std::uint32_t n = 1; n <= 200; ++n) {
    const std::string key = numbered_id(9, n).text();
    const std::string run = numbered_id(8, n).text();
    Event event = make_event("agent " + std::to_string(n), key, system_clock().wall());
    const std::string name = "agent " + std::to_string(n);
    event.agent_name = name;
    event.run_id = run;
    write_batch(n, {event});
  }
  const auto shipper = start();
  wait_until_stored();
  CHECK(control.applies == 1);
  Sql sql(path);
  const auto rows = sql.lines(
      "SELECT agent_name, dedup_key, run_id FROM events ORDER BY LENGTH(agent_name), agent_name", 3);
  REQUIRE(rows.size() == 200);
  for (std::uint32_t n = 1; n <= 200; ++n) {
    CHECK(rows[n - 1] ==
          "agent " + std::to_string(n) + "|" + numbered_id(9, n).text() + "|" + numbered_id(8, n).text());
  }
}

TEST_CASE_FIXTURE(ShipperFixture, "at every moment the store has exactly the events up to its position") {
  ship.batch_events_max = 7;
  const auto shipper = start();
  std::atomic<bool> done{false};
  std::int64_t looks = 0;
  std::thread observer([&] {
    Sql sql(path);
    while (!done) {
      // One statement sees one moment. Every frame has one event.
      if (sql.integer("SELECT (SELECT COUNT(*) FROM events) - (SELECT COALESCE(MAX(seq), 0) FROM "
                      "shipper_positions)") != 0) {
        FAIL_CHECK("events and position differ");
      }
      ++looks;
    }
  });
  write_batches(1, 300);
  wait_until_stored();
  done = true;
  observer.join();
  CHECK(looks > 0);
  CHECK(stored_events() == 300);
}

TEST_CASE_FIXTURE(ShipperFixture, "a shipper that is started again goes on behind what is stored") {
  ship.batch_events_max = 10;
  std::uint32_t written = 0;
  for (int round = 0; round < 10; ++round) {
    auto shipper = start();
    write_batches(written + 1, written + 20);
    written += 20;
    if (round % 2 == 0) wait_until([&] { return control.applies > round; });
    shipper->stop(0);
    CHECK(shipper->metrics().duplicates.value() == 0);
    shipper.reset();
    if (round % 3 == 0) open_journal_again();
  }
  const auto shipper = start();
  shipper->stop(kPatience);
  CHECK(position() == written);
  CHECK(stored_events() == written);
}

TEST_CASE_FIXTURE(ShipperFixture, "a position that was put back stores nothing twice") {
  write_batches(1, 50);
  start()->stop(kPatience);
  REQUIRE(position() == 50);
  Sql(path).execute("UPDATE shipper_positions SET seq = 20");
  // Segments of frames behind 20 must still be there: nothing was released in this run of the journal but by
  // the shipper, which keeps the last one.
  const std::uint64_t first_left = [&] {
    const auto found = inspect_journal(options.directory);
    REQUIRE(found.has_value());
    return found->segments.front().first_seq;
  }();
  REQUIRE(first_left <= 21);
  open_journal_again();
  const auto shipper = start();
  shipper->stop(kPatience);
  CHECK(position() == 50);
  CHECK(stored_events() == 50);
  CHECK(shipper->metrics().duplicates.value() == 30);
}

TEST_CASE_FIXTURE(ShipperFixture, "a transaction holds as many events as it may, and at least one batch") {
  ship.batch_events_max = 10;
  const WallMicros now = system_clock().wall();
  for (std::uint32_t n = 1; n <= 20; ++n)
    write_batch(n, {make_event("a", "", now), make_event("b", "", now), make_event("c", "", now)});
  write_batch(21, std::vector<Event>(25, make_event("d", "", now)));
  start()->stop(kPatience);
  CHECK(stored_events() == 85);
  CHECK(control.most_events <= 9 + 25);
  CHECK(control.applies >= 6);
}

// --- a store that fails ------------------------------------------------------------------------------------

TEST_CASE_FIXTURE(ShipperFixture, "a store that fails for a while is tried again until it takes everything") {
  control.failures_left = 4;
  const auto shipper = start();
  write_batches(1, 20);
  wait_until([&] { return !shipper->healthy() || position() == 20; });
  wait_until_stored();
  wait_until([&] { return shipper->healthy(); });
  shipper->stop(0);
  CHECK(stored_events() == 20);
  CHECK(shipper->metrics().failures.value() == 4);
  CHECK(shipper->metrics().duplicates.value() == 0);
}

TEST_CASE_FIXTURE(ShipperFixture,
                  "while the store fails the journal keeps everything, up to its bound, and loses nothing") {
  options.backlog_bytes_max = 100'000;
  open_journal_again();
  control.fail_for_ever();
  const auto shipper = start();
  std::uint32_t written = 0;
  while (!(*journal)->saturated()) write_batches(written + 1, written + 1), ++written;
  CHECK(journal->submit(payload_number(1)) == nullptr);
  wait_until([&] { return !shipper->healthy(); });
  CHECK(position() == 0);
  CHECK((*journal)->released_seq() == 0);

  control.failures_left = 0;
  wait_until_stored();
  wait_until([&] { return (*journal)->backlog_bytes() == 0; });
  CHECK_FALSE((*journal)->saturated());
  CHECK(stored_events() == written);
}

TEST_CASE_FIXTURE(ShipperFixture,
                  "a failure that will not pass ends the shipping, and what is not stored stays") {
  control.failures_left = 1;
  control.failures_are_retryable = false;
  write_batches(1, 10);
  {
    const auto shipper = start();
    wait_until([&] { return !shipper->healthy(); });
    write_batches(11, 12);
    shipper->stop(kPatience);  // returns: its thread has ended
    CHECK_FALSE(shipper->healthy());
    CHECK(control.applies == 1);
    CHECK(stored_events() == 0);
  }
  start()->stop(kPatience);
  CHECK(stored_events() == 12);
}

// --- damage ------------------------------------------------------------------------------------------------

struct DamagedShipperFixture : ShipperFixture {
  // Frames 1 to 10, of which the sixth has a flipped bit that appeared behind the open journal's back.
  DamagedShipperFixture() {
    write_batches(1, 10);
    const std::string file = segment_paths(options.directory).front();
    Bytes bytes = read_file(file);
    SegmentHeader header;
    std::uint32_t version = 0;
    REQUIRE(read_segment_header(bytes, header, version) == HeaderState::kSound);
    std::uint64_t at = 0;
    scan_segment(bytes, header, std::nullopt, false,
                 [&](const FrameHeader& frame, std::span<const std::uint8_t>, std::uint64_t offset) {
                   if (frame.seq == 6) at = offset;
                 });
    flip_bit(bytes, (at + kFrameHeaderBytes + 3) * 8);
    write_file(file, bytes);
  }
};

TEST_CASE_FIXTURE(DamagedShipperFixture, "a damaged frame ends the shipping in front of it") {
  const auto shipper = start();
  wait_until([&] { return !shipper->healthy(); });
  shipper->stop(kPatience);
  CHECK(position() <= 5);
  CHECK(stored_events() == static_cast<std::int64_t>(position()));
  CHECK((*journal)->released_seq() <= 5);
}

TEST_CASE_FIXTURE(DamagedShipperFixture, "a damaged frame that may be skipped is the only one that is lost") {
  ship.on_corruption = CorruptionPolicy::kSkip;
  start()->stop(kPatience);
  CHECK(position() == 10);
  CHECK(stored_events() == 9);
}

TEST_CASE_FIXTURE(ShipperFixture, "damage at the end is passed too, so that the journal can be released") {
  ship.on_corruption = CorruptionPolicy::kSkip;
  write_batches(1, 3);
  const std::string file = segment_paths(options.directory).front();
  Bytes bytes = read_file(file);
  std::fill(bytes.begin() + kSegmentHeaderBytes, bytes.end(), std::uint8_t{0});
  write_file(file, bytes);
  start()->stop(kPatience);
  CHECK(position() == 3);
  CHECK(stored_events() == 0);
}

TEST_CASE_FIXTURE(ShipperFixture, "a frame of an unknown type ends the shipping: it is of a newer version") {
  write_batches(1, 3);
  REQUIRE(journal->write({200, 1, 2, 3}) == Receipt::kJournal);
  const auto shipper = start();
  wait_until([&] { return !shipper->healthy(); });
  shipper->stop(kPatience);
  CHECK(position() <= 3);
}

// --- positions that do not fit -----------------------------------------------------------------------------

TEST_CASE_FIXTURE(ShipperFixture, "a store that is ahead of the journal is refused") {
  write_batches(1, 10);
  start()->stop(kPatience);
  const std::string file = segment_paths(options.directory).front();
  journal.reset();
  // As after a damaged last group: the journal ends earlier than what was stored from it.
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 20);
  open_journal_again();
  REQUIRE((*journal)->durable_seq() == 9);
  const std::string told = refusal();
  CHECK(told.find("the store is ahead of the journal (frame 10, journal ends at 9)") != std::string::npos);
  CHECK((*journal)->released_seq() < 9);
}

TEST_CASE_FIXTURE(ShipperFixture,
                  "a journal that begins behind what is stored lacks a segment: refused, or skipped") {
  write_batches(1, 10);
  start()->stop(kPatience);
  Sql(path).execute("UPDATE shipper_positions SET seq = 4");
  write_batches(11, 200);
  journal.reset();
  std::filesystem::remove(segment_paths(options.directory).front());
  open_journal_again();
  const std::uint64_t begins_with = (*journal)->released_seq() + 1;
  REQUIRE(begins_with > 5);
  CHECK(refusal().find("begins with frame " + std::to_string(begins_with) +
                       ", the store has frames up to 4: "
                       "a segment is missing") != std::string::npos);
  ship.on_corruption = CorruptionPolicy::kSkip;
  start()->stop(kPatience);
  CHECK(position() == 200);
}

TEST_CASE_FIXTURE(ShipperFixture, "a new store begins with what the journal still has") {
  write_batches(1, 200);
  start()->stop(kPatience);
  for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path + suffix);
  open_journal_again();
  const std::uint64_t released = (*journal)->released_seq();
  REQUIRE(released > 0);
  start()->stop(kPatience);
  CHECK(position() == 200);
  CHECK(stored_events() == static_cast<std::int64_t>(200 - released));
}

TEST_CASE_FIXTURE(ShipperFixture,
                  "a new journal is followed from its first frame, whatever was stored of another one") {
  write_batches(1, 10);
  start()->stop(kPatience);
  journal.reset();
  for (const std::string& file : segment_paths(options.directory)) std::filesystem::remove(file);
  open_journal_again();
  write_batches(11, 13);
  start()->stop(kPatience);
  CHECK(position() == 3);
  CHECK(stored_events() == 13);
}

// --- stop --------------------------------------------------------------------------------------------------

TEST_CASE_FIXTURE(ShipperFixture,
                  "stop() stores what is durable by then, and does not wait for more to come") {
  ship.batch_delay_us = 3600 * kMicrosPerSecond;
  const auto shipper = start();
  write_batches(1, 50);
  shipper->stop(kPatience);
  CHECK(position() == 50);
  shipper->stop(kPatience);  // again, harmless
}

TEST_CASE_FIXTURE(ShipperFixture, "stop() without patience comes back at once, also while the store fails") {
  control.fail_for_ever();
  const auto shipper = start();
  write_batches(1, 5);
  wait_until([&] { return control.applies > 0; });
  shipper->stop(0);
  CHECK(position() == 0);
}

TEST_CASE_FIXTURE(ShipperFixture, "stop() has patience with a store that fails, without hammering on it") {
  control.fail_for_ever();
  const auto shipper = start();
  write_batches(1, 5);
  wait_until([&] { return control.applies > 0; });
  shipper->stop(kMicrosPerSecond / 2);
  CHECK(control.applies < 20);
}

// --- deduplication keys ------------------------------------------------------------------------------------

TEST_CASE_FIXTURE(ShipperFixture, "keys older than the window are forgotten, also without new events") {
  const WallMicros now = system_clock().wall();
  write_batch(1, {make_event("a", "old", now)}, now - kWindow - kMicrosPerHour);
  write_batch(2, {make_event("a", "young", now)}, now - kWindow + kMicrosPerHour);
  start()->stop(kPatience);
  const auto shipper = start();
  Sql sql(path);
  wait_until([&] { return sql.integer("SELECT COUNT(*) FROM dedup_keys") == 1; });
  CHECK(sql.text("SELECT dedup_key FROM dedup_keys") == "young");
  CHECK(stored_events() == 2);
}

TEST_CASE_FIXTURE(
    ShipperFixture,
    "a batch that waited in the journal is a duplicate of what was in its window when it came") {
  const WallMicros now = system_clock().wall();
  const WallMicros first = now - kWindow - kMicrosPerHour;
  write_batch(1, {make_event("a", "key", now)}, first);
  start()->stop(kPatience);
  // Two hours before the key's window ended, and stored an hour after it.
  write_batch(2, {make_event("a", "key", now)}, first + kWindow - kMicrosPerHour);
  const auto shipper = start();
  shipper->stop(kPatience);
  CHECK(stored_events() == 1);
  CHECK(shipper->metrics().duplicates.value() == 1);
}

}  // namespace kavach::sink::test
