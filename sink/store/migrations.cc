#include "sink/store/migrations.h"

#include <fmt/format.h>

#include <string>

#include "sink/store/sql.h"

namespace kavach::sink {
namespace {

// The highest number applied; 0 for an empty database.
StoreResult<std::int64_t> applied_version(Connection& connection) {
  auto find_table = connection.prepare(
      connection.dialect() == Dialect::kSqlite
          ? "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'schema_migrations'"
          : "SELECT COUNT(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = "
            "'schema_migrations'");
  if (!find_table) return find_table.error();
  auto found = find_table->scalar();
  if (!found || *found == 0) return found;

  auto newest = connection.prepare("SELECT COALESCE(MAX(number), 0) FROM schema_migrations");
  if (!newest) return newest.error();
  return newest->scalar();
}

StoreResult<void> apply_one(Connection& connection, const Migration& migration, WallMicros now) {
  if (auto ran = connection.execute(std::string(migration.sql).c_str()); !ran) {
    return StoreFailure{
        fmt::format("migration {} ({}): {}", migration.number, migration.name, ran.error().message),
        ran.error().retryable};
  }
  auto remember =
      connection.prepare("INSERT INTO schema_migrations (number, name, applied_at_us) VALUES (?1, ?2, ?3)");
  if (!remember) return remember.error();
  if (auto ran = remember->run(migration.number, migration.name, now); !ran) return ran.error();
  return {};
}

}  // namespace

StoreResult<void> migrate(Connection& connection, std::span<const Migration> migrations, WallMicros now) {
  const std::int64_t newest_known = migrations.empty() ? 0 : migrations.back().number;
  for (;;) {
    const auto before = applied_version(connection);
    if (!before) return before.error();
    if (*before > newest_known) {
      return StoreFailure{
          fmt::format("the database has schema version {}, this Kavach knows versions up to {}: "
                      "it was written by a newer Kavach; run that one, or restore a backup",
                      *before, newest_known),
          false};
    }
    if (*before == newest_known) return {};

    auto transaction = Transaction::begin_write(connection);
    if (!transaction) return transaction.error();
    if (connection.dialect() == Dialect::kPostgres) {
      // SQLite's transaction has the write lock; here it is a lock of Kavach's own, "kavach" in ASCII.
      auto locked = connection.execute("SELECT pg_advisory_xact_lock(118066342093672)");
      if (!locked) return locked.error();
    }
    // Another process may have migrated while this one waited for the lock.
    const auto version = applied_version(connection);
    if (!version) return version.error();
    if (*version >= newest_known) continue;
    if (auto made =
            connection.execute("CREATE TABLE IF NOT EXISTS schema_migrations (number INTEGER PRIMARY KEY, "
                               "name TEXT NOT NULL, applied_at_us BIGINT NOT NULL)");
        !made) {
      return made.error();
    }
    const Migration& next = migrations[static_cast<std::size_t>(*version)];
    if (auto applied = apply_one(connection, next, now); !applied) return applied.error();
    if (auto committed = transaction->commit(); !committed) return committed.error();
  }
}

}  // namespace kavach::sink
