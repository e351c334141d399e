// What the store's tests share: a database file of their own, a clock that they set, batches, and plain SQL
// to look at the result behind the Store's back.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/clock.h"
#include "engine/event.h"
#include "sink/store/control/control_store.h"
#include "sink/store/sql.h"
#include "sink/store/store.h"
#include "tests/support/temp_folder.h"

#ifdef KAVACH_TEST_POSTGRES
#include <fmt/format.h>

#include "sink/store/postgres/session.h"
#include "tests/support/postgres_server.h"
#endif

namespace kavach::sink::test {

using kavach::test::TempFolder;

class FixedClock final : public Clock {
 public:
  WallMicros wall() const noexcept override { return now; }
  MonoMicros mono() const noexcept override { return now; }
  WallMicros now = 1'800'000'000 * kMicrosPerSecond;
};

// Its own connection to the same database.
class Sql {
 public:
  explicit Sql(const std::string& path) : connection_(must(connect_sqlite(path))) {}
  explicit Sql(Connection connection) : connection_(std::move(connection)) {}

  std::int64_t integer(std::string_view query) {
    auto statement = must(connection_.prepare(query));
    return must(statement.scalar());
  }
  std::string text(std::string_view query) {
    auto statement = must(connection_.prepare(query));
    auto rows = statement.rows();
    REQUIRE(must(rows.next()));
    return std::string(rows.text(0));
  }
  // All rows, each as its columns' texts joined by '|'.
  std::vector<std::string> lines(std::string_view query, int columns) {
    auto statement = must(connection_.prepare(query));
    auto rows = statement.rows();
    std::vector<std::string> result;
    while (must(rows.next())) {
      std::string line;
      for (int i = 0; i < columns; ++i) line.append(i == 0 ? "" : "|").append(rows.text(i));
      result.push_back(std::move(line));
    }
    return result;
  }
  void execute(const char* sql) { REQUIRE(connection_.execute(sql).has_value()); }
  Connection& connection() { return connection_; }

  template <typename T>
  static T must(StoreResult<T> result) {
    if (!result) FAIL(result.error().message);
    return std::move(*result);
  }

 private:
  Connection connection_;
};

inline Uuid numbered_id(std::uint8_t kind, std::uint32_t number) {
  Uuid id;
  id.bytes = {1, 0x9b, 0, 0, 0, kind, 0x70, 0, 0x80, 0, 0, 0};
  for (std::size_t i = 0; i < 4; ++i) id.bytes[12 + i] = static_cast<std::uint8_t>(number >> (24 - 8 * i));
  return id;
}

inline const Uuid kJournal = numbered_id(1, 1);
inline const Uuid kOrg = numbered_id(2, 1);
inline const Uuid kProject = numbered_id(3, 1);

inline Event make_event(std::string_view agent, std::string_view key, WallMicros at) {
  Event event;
  event.agent_name = agent;
  event.provider = "openai";
  event.model = "gpt-4o";
  event.idempotency_key = key;
  event.timestamp = at;
  event.input_tokens = 100;
  event.output_tokens = 20;
  event.duration_ms = 250;
  event.cost = 1'500'000;
  return event;
}

inline Batch make_batch(std::uint32_t number, WallMicros received_at, std::vector<Event> events) {
  Batch batch;
  batch.id = numbered_id(4, number);
  batch.org_id = kOrg;
  batch.project_id = kProject;
  batch.received_at = received_at;
  batch.events = std::move(events);
  return batch;
}

inline KeyDigest digest_of(std::uint8_t seed) {
  KeyDigest digest{};
  digest.fill(seed);
  return digest;
}

#ifdef KAVACH_TEST_POSTGRES
// The same tests on Postgres: one server for all of them, a database for each.
struct StoreFixture {
  static kavach::test::PostgresServer& server() {
    static kavach::test::PostgresServer one;
    return one;
  }
  static std::string make_database() {
    static int databases = 0;
    const std::string name = fmt::format("kavach_{}", ++databases);
    Sql(connect(server().url())).execute(("CREATE DATABASE " + name).c_str());
    // SQLite's names for what the tests ask, where Postgres has others.
    Sql(connect(server().url(name)))
        .execute(
            "CREATE FUNCTION json_valid(t text) RETURNS int LANGUAGE sql AS $$ SELECT (t::json IS NOT "
            "NULL)::int "
            "$$; CREATE FUNCTION json_array_length(t text) RETURNS int LANGUAGE sql AS $$ SELECT "
            "json_array_length(t::json) $$; CREATE FUNCTION unixepoch(s bigint, text, text) RETURNS bigint "
            "LANGUAGE sql AS $$ SELECT s / 86400 * 86400 $$; CREATE FUNCTION strftime(f text, s bigint, "
            "text) "
            "RETURNS bigint LANGUAGE sql AS $$ SELECT to_char(to_timestamp(s) AT TIME ZONE 'UTC', CASE f "
            "WHEN "
            "'%Y' THEN 'YYYY' ELSE 'MM' END)::bigint $$");
    return server().url(name);
  }
  static Connection connect(const std::string& url) {
    return Connection(Sql::must(connect_postgres(url, 10'000)));
  }

  FixedClock clock;
  std::string url = make_database();
  std::unique_ptr<Store> store = open(kRememberForEver);
  Sql sql{connect(url)};

  std::unique_ptr<Store> open(std::int64_t dedup_window_us) const {
    return Sql::must(open_postgres({.url = url, .dedup_window_us = dedup_window_us}, clock));
  }
  std::unique_ptr<ControlStore> open_control() const {
    return Sql::must(connect_control_postgres(url, 10'000, clock));
  }
  void refuse_inserts(const std::string& table) {
    sql.execute(
        ("CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'broken'; END $$; "
         "CREATE TRIGGER broken BEFORE INSERT ON " +
         table + " FOR EACH ROW EXECUTE FUNCTION broken()")
            .c_str());
  }
  void allow_inserts(const std::string& table) {
    sql.execute(("DROP TRIGGER broken ON " + table + "; DROP FUNCTION broken()").c_str());
  }
  static constexpr std::string_view kInteger = "bigint";
  static std::string type_of(const std::string& column) { return "pg_typeof(" + column + ")::text"; }
  // Postgres has no NUL in a text.
  static std::string as_stored(std::string_view text) {
    std::string stored(text);
    for (std::size_t at = 0; (at = stored.find('\0', at)) != std::string::npos;)
      stored.replace(at, 1, "\xef\xbf\xbd");
    return stored;
  }
#else
struct StoreFixture {
  TempFolder folder;
  FixedClock clock;
  std::string path = folder.file("kavach.db");
  std::unique_ptr<Store> store = open(kRememberForEver);
  Sql sql{path};

  std::unique_ptr<Store> open(std::int64_t dedup_window_us) const {
    return Sql::must(open_sqlite(path, clock, dedup_window_us));
  }
  std::unique_ptr<ControlStore> open_control() const {
    return Sql::must(connect_control_sqlite(path, clock));
  }
  void refuse_inserts(const std::string& table) {
    sql.execute(
        ("CREATE TRIGGER broken BEFORE INSERT ON " + table + " BEGIN SELECT RAISE(ABORT, 'broken'); END")
            .c_str());
  }
  void allow_inserts(const std::string&) { sql.execute("DROP TRIGGER broken"); }
  static constexpr std::string_view kInteger = "integer";
  static std::string type_of(const std::string& column) { return "typeof(" + column + ")"; }
  static std::string as_stored(std::string_view text) { return std::string(text); }
#endif

  ApplyOutcome apply(const Batch& batch, std::uint64_t seq) {
    return Sql::must(store->apply(std::span<const Batch>(&batch, 1), kJournal, seq));
  }
};

}  // namespace kavach::sink::test
