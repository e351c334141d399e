// What only Postgres does: days as partitions, servers that go and come back, several that migrate at once;
// and what consumers of a partitioned log rely on.
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <thread>

#include "sink/store/migrations.h"
#include "sink/store/postgres/change_listener.h"
#include "tests/sink/store_fixture.h"

namespace kavach::sink::test {
namespace {

constexpr std::int64_t kDayUs = 24 * kMicrosPerHour;

std::span<const Batch> one(const Batch& batch) {
  return {&batch, 1};
}

}  // namespace

TEST_CASE_FIXTURE(StoreFixture, "events lie in the partition of their day, odd ones in the default") {
  apply(make_batch(1, clock.now,
                   {make_event("a", "", clock.now), make_event("a", "", clock.now - kDayUs),
                    make_event("a", "", clock.now - 400 * kDayUs)}),
        1);
  // 2027-01-15.
  CHECK(sql.lines("SELECT tableoid::regclass::text FROM events ORDER BY ts_us", 1) ==
        std::vector<std::string>{"events_default", "events_20270114", "events_20270115"});
  CHECK(sql.integer("SELECT COUNT(*) FROM pg_class WHERE relname = 'events_20270116'") == 1);
}

TEST_CASE_FIXTURE(StoreFixture, "retention drops whole days, and takes old rows out of the default") {
  store = Sql::must(open_postgres({.url = url, .retention_days = 3}, clock));
  apply(make_batch(1, clock.now,
                   {make_event("old", "", clock.now - 400 * kDayUs),
                    make_event("a", "", clock.now - 2 * kDayUs), make_event("a", "", clock.now)}),
        1);
  REQUIRE(store->prune(0, 100).has_value());
  CHECK(sql.lines("SELECT tableoid::regclass::text FROM events ORDER BY ts_us", 1) ==
        std::vector<std::string>{"events_20270113", "events_20270115"});
  clock.now += kDayUs;
  REQUIRE(store->prune(0, 100).has_value());
  CHECK(sql.lines("SELECT tableoid::regclass::text FROM events ORDER BY ts_us", 1) ==
        std::vector<std::string>{"events_20270115"});
  CHECK(sql.integer("SELECT COUNT(*) FROM pg_class WHERE relname = 'events_20270113'") == 0);
  CHECK(sql.integer("SELECT SUM(total_events) FROM agents") == 3);
}

TEST_CASE("eight processes that open an empty database at once make one schema") {
  const std::string url = StoreFixture::make_database();
  std::array<pid_t, 8> children{};
  for (pid_t& child : children) {
    child = ::fork();
    if (child == 0) ::_exit(open_postgres({.url = url, .timeout_ms = 60'000}).has_value() ? 0 : 1);
  }
  for (const pid_t child : children) {
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
  }
  CHECK(Sql(StoreFixture::connect(url)).integer("SELECT COUNT(*) FROM schema_migrations") == 7);
}

TEST_CASE_FIXTURE(StoreFixture,
                  "a connection that is cut is a failure that passes, and nothing comes twice") {
  const Batch first = make_batch(1, clock.now, {make_event("a", "key", clock.now)});
  apply(first, 1);
  sql.execute(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = "
      "current_database()");
  for (int i = 0; i < 100; ++i) {
    const auto applied = store->apply(one(first), kJournal, 2);
    if (applied) break;
    CHECK(applied.error().retryable);
  }
  CHECK(Sql::must(store->position(kJournal)) == 2);
  CHECK(sql.integer("SELECT COUNT(*) FROM events") == 1);
}

TEST_CASE_FIXTURE(StoreFixture,
                  "a transaction that lost its connection ends there, and what follows it has a new one") {
  Connection connection = connect(url);
  auto outside = Sql::must(connection.prepare("SELECT 1"));
  {
    auto transaction = Transaction::begin_write(connection);
    REQUIRE(transaction.has_value());
    sql.execute(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND "
        "datname = "
        "current_database()");
    for (int i = 0; i < 2; ++i) {
      const auto within = connection.execute("SELECT 1");
      REQUIRE_FALSE(within.has_value());
      CHECK(within.error().retryable);
    }
  }
  auto rows = outside.rows();
  CHECK(Sql::must(rows.next()));
}

TEST_CASE("a server that is killed, or frozen, is waited for no longer than asked, and found again") {
  kavach::test::PostgresServer server;
  FixedClock clock;
  const auto store = Sql::must(open_postgres({.url = server.url(), .timeout_ms = 1'000}, clock));
  const Batch batch = make_batch(1, clock.now, {make_event("a", "key", clock.now)});
  REQUIRE(store->apply(one(batch), kJournal, 1).has_value());

  server.kill();
  const auto away = store->apply(one(batch), kJournal, 2);
  REQUIRE(away.has_error());
  CHECK(away.error().retryable);
  CHECK(away.error().message.find("s3cret") == std::string::npos);
  CHECK(store->directory_version().has_error());
  server.start();
  for (int i = 0; i < 100 && !store->ping(); ++i) {
  }
  REQUIRE(store->apply(one(batch), kJournal, 2).has_value());

  server.pause();
  const auto frozen = store->apply(one(batch), kJournal, 3);
  REQUIRE(frozen.has_error());
  CHECK(frozen.error().retryable);
  server.resume();
  bool stored = false;
  for (int i = 0; i < 1000 && !stored; ++i) stored = store->apply(one(batch), kJournal, 3).has_value();
  CHECK(stored);
  CHECK(Sql::must(store->position(kJournal)) == 3);
  CHECK(Sql(StoreFixture::connect(server.url())).integer("SELECT COUNT(*) FROM events") == 1);
}

TEST_CASE_FIXTURE(StoreFixture,
                  "a change of the directory is heard of; storing events, and a key's use, are not") {
  std::atomic<int> heard{0};
  const ChangeListener listener(url, [&] { ++heard; });
  const auto reaches = [&heard](int count) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (heard < count && std::chrono::steady_clock::now() < until)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return heard.load();
  };
  REQUIRE(reaches(1) == 1);  // of the connection
  apply(make_batch(1, clock.now, {make_event("a", "key", clock.now)}), 1);
  const OrgRecord org = Sql::must(store->create_org("acme", "pro", {"default", "ak_test", digest_of(1)}));
  CHECK(reaches(2) == 2);
  Sql::must(store->kill_agent(org.id, "a", "why"));
  CHECK(reaches(3) == 3);
}

TEST_CASE("what is no database is refused without showing its password") {
  for (const std::string& url :
       {std::string("postgres://user:s3cret@[broken"), std::string("postgres://user:s3cret@127.0.0.1:1/x")}) {
    const auto opened = open_postgres({.url = url, .timeout_ms = 2'000});
    REQUIRE(opened.has_error());
    CHECK(opened.error().message.find("s3cret") == std::string::npos);
  }
}

TEST_CASE_FIXTURE(StoreFixture,
                  "a key that comes again in one transaction counts by what became of the first") {
  constexpr std::int64_t kWindow = 168 * kMicrosPerHour;
  store = open(kWindow);
  const auto batch = [&](std::uint32_t number, WallMicros at) {
    return make_batch(number, at, {make_event("a", "key", at)});
  };
  apply(batch(1, clock.now), 1);
  const std::array<Batch, 3> batches{batch(2, clock.now + kWindow), batch(3, clock.now + kWindow + 1),
                                     batch(4, clock.now + kWindow + 2)};
  const ApplyOutcome outcome = Sql::must(store->apply(batches, kJournal, 4));
  CHECK(outcome.stored == 1);
  CHECK(outcome.duplicates == 2);
}

TEST_CASE_FIXTURE(StoreFixture, "a partition has one consumer: who had it before stores nothing more") {
  PartitionPosition mine = Sql::must(store->claim_partition("events", 3));
  CHECK(mine.generation == 1);
  CHECK(mine.next_offset == 0);
  mine.next_offset = 10;
  const Batch first = make_batch(1, clock.now, {make_event("a", "", clock.now)});
  CHECK(Sql::must(store->apply_at(one(first), kJournal, {&mine, 1})).stored == 1);

  PartitionPosition theirs = Sql::must(store->claim_partition("events", 3));
  CHECK(theirs.generation == 2);
  CHECK(theirs.next_offset == 10);
  mine.next_offset = 20;
  const Batch second = make_batch(2, clock.now, {make_event("a", "", clock.now)});
  const auto fenced = store->apply_at(one(second), kJournal, {&mine, 1});
  REQUIRE(fenced.has_error());
  CHECK(fenced.error().fenced);
  CHECK_FALSE(fenced.error().retryable);
  CHECK(sql.integer("SELECT COUNT(*) FROM events") == 1);
  CHECK(sql.integer("SELECT total_events FROM agents") == 1);
  theirs.next_offset = 20;
  CHECK(Sql::must(store->apply_at(one(second), kJournal, {&theirs, 1})).stored == 1);
  CHECK(sql.integer("SELECT next_offset FROM partition_positions") == 20);
}

}  // namespace kavach::sink::test
