// The schema: the contract's text exactly, in numbered steps, whoever opens the file first.
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>

#include "sink/store/migrations.h"
#include "tests/sink/store_fixture.h"

namespace kavach::sink::test {
namespace {

constexpr std::string_view kCountTables =
    "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
constexpr std::string_view kCountNamedIndexes =
    "SELECT COUNT(*) FROM sqlite_master WHERE type = 'index' AND name NOT LIKE 'sqlite_%'";
// Of the contract's tables: what Kavach adds to them or beside them is taken out.
constexpr std::string_view kSchemaText =
    "SELECT replace(replace(replace(replace(sql, ', last_received_us BIGINT', ''), ', stripe_event_us "
    "BIGINT', "
    "''), ', secret_enc TEXT)', ')'), ', total_runs BIGINT NOT NULL DEFAULT 0', '') FROM sqlite_master "
    "WHERE sql IS NOT NULL AND type IN ('table', 'index') AND name NOT IN ('schema_migrations', "
    "'shipper_positions', 'directory_version', 'org_limits', 'node_usage', 'partition_positions', "
    "'ix_node_usage_period', "
    "'ix_agents_killed', 'ix_deliveries_created', 'ix_alert_events_created', 'ix_alert_fired_at', "
    "'ix_usage_minute_at', 'ix_events_agent_errors') ORDER BY name";

// FNV-1a: short, and enough to notice an edit.
std::uint64_t fingerprint(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : text) hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100000001b3ULL;
  return hash;
}

}  // namespace

TEST_CASE("the contract's schema makes 40 tables and 41 named indexes in an empty SQLite") {
  TempFolder folder;
  Sql sql(folder.file("contract.db"));
  sql.execute(std::string(sqlite_migrations()[0].sql).c_str());
  CHECK(sql.integer(kCountTables) == 40);
  CHECK(sql.integer(kCountNamedIndexes) == 41);
}

TEST_CASE("an opened store has exactly the contract's tables and indexes, beside Kavach's own") {
  TempFolder folder;
  Sql contract(folder.file("contract.db"));
  contract.execute(std::string(sqlite_migrations()[0].sql).c_str());
  const auto store = Sql::must(open_sqlite(folder.file("kavach.db")));
  Sql opened(folder.file("kavach.db"));
  CHECK(opened.lines(kSchemaText, 1) == contract.lines(kSchemaText, 1));
  CHECK(opened.integer(kCountTables) == 40 + 6);
  CHECK(opened.integer("SELECT COUNT(*) FROM pragma_table_info('agents')") ==
        contract.integer("SELECT COUNT(*) FROM pragma_table_info('agents')") + 2);
}

TEST_CASE("released migrations are never edited") {
  CHECK(fingerprint(sqlite_migrations()[0].sql) == 57626851629621404U);
  CHECK(fingerprint(sqlite_migrations()[1].sql) == 17140397735724480461U);
  CHECK(fingerprint(sqlite_migrations()[2].sql) == 10172716850160150506U);
}

TEST_CASE("each migration is remembered with its number, name and time") {
  TempFolder folder;
  FixedClock clock;
  clock.now = 42;
  const auto store = Sql::must(open_sqlite(folder.file("kavach.db"), clock));
  Sql sql(folder.file("kavach.db"));
  CHECK(sql.lines("SELECT number, name, applied_at_us FROM schema_migrations ORDER BY number", 3) ==
        std::vector<std::string>{"1|contract|42", "2|kavach|42", "3|limits|42", "4|partition_positions|42",
                                 "5|billing|42", "6|alerts|42", "7|bounds|42"});
}

TEST_CASE("a database of a newer version is refused in words, and not touched") {
  StoreFixture f;
  f.sql.execute("INSERT INTO schema_migrations (number, name, applied_at_us) VALUES (8, 'later', 0)");
  const auto opened = open_sqlite(f.path);
  REQUIRE(opened.has_error());
  CHECK_FALSE(opened.error().retryable);
  CHECK(opened.error().message.find("schema version 8") != std::string::npos);
  CHECK(opened.error().message.find("newer Kavach") != std::string::npos);
}

TEST_CASE("a migration that fails half-way leaves nothing of itself") {
  TempFolder folder;
  Sql sql(folder.file("kavach.db"));
  const std::array<Migration, 2> broken{Migration{1, "good", "CREATE TABLE a (x);"},
                                        Migration{2, "bad", "CREATE TABLE b (x); CREATE TABLE a (x);"}};
  const auto migrated = migrate(sql.connection(), broken, 7);
  REQUIRE(migrated.has_error());
  CHECK(migrated.error().message.find("migration 2 (bad)") != std::string::npos);
  CHECK(sql.lines("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name", 1) ==
        std::vector<std::string>{"a", "schema_migrations"});
  CHECK(sql.integer("SELECT MAX(number) FROM schema_migrations") == 1);
}

TEST_CASE("a database of any older version is brought up to date with its rows") {
  for (std::size_t version = 1; version < sqlite_migrations().size(); ++version) {
    CAPTURE(version);
    TempFolder folder;
    {
      Sql sql(folder.file("kavach.db"));
      REQUIRE(migrate(sql.connection(), sqlite_migrations().first(version), 7).has_value());
      sql.execute(
          "INSERT INTO agents (org_id, name, first_seen_us) VALUES ('o', 'kept', 1), ('o', 'idle', 1); "
          "INSERT INTO runs (org_id, run_id, agent_name, first_event_us, last_event_us) VALUES "
          "('o', 'r', 'kept', 1, 1), ('o', 's', 'kept', 1, 1), ('p', 'r', 'kept', 1, 1)");
    }
    const auto store = Sql::must(open_sqlite(folder.file("kavach.db")));
    CHECK(Sql::must(store->directory_version()) == 1);
    CHECK(Sql(folder.file("kavach.db"))
              .lines("SELECT name, total_runs FROM agents WHERE last_received_us IS NULL ORDER BY 1", 2) ==
          std::vector<std::string>{"idle|0", "kept|2"});
  }
}

TEST_CASE("opening an up-to-date database does not wait for a writer") {
  StoreFixture f;
  const auto writing = Transaction::begin_write(f.sql.connection());
  REQUIRE(writing.has_value());
  CHECK(open_sqlite(f.path).has_value());
}

TEST_CASE("eight processes that open a missing file at once make one schema") {
  TempFolder folder;
  const std::string path = folder.file("new/kavach.db");
  std::array<pid_t, 8> children{};
  for (pid_t& child : children) {
    child = ::fork();
    if (child == 0) ::_exit(open_sqlite(path).has_value() ? 0 : 1);
  }
  for (const pid_t child : children) {
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
  }
  CHECK(Sql(path).integer("SELECT COUNT(*) FROM schema_migrations") == 7);
}

TEST_CASE("the database and its write-ahead log are readable by their owner only") {
  StoreFixture f;
  f.sql.execute("UPDATE directory_version SET version = version + 1");
  for (const std::string& file : {f.path, f.path + "-wal"}) {
    struct stat status {};
    REQUIRE(::stat(file.c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0600);
  }
}

TEST_CASE("a file that is no database is refused, not retried") {
  TempFolder folder;
  std::ofstream(folder.file("kavach.db")) << std::string(8192, 'x');
  const auto opened = open_sqlite(folder.file("kavach.db"));
  REQUIRE(opened.has_error());
  CHECK_FALSE(opened.error().retryable);
  CHECK(opened.error().message.find("kavach.db") != std::string::npos);
}

}  // namespace kavach::sink::test
