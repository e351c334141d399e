// Migrations: the schema as numbered steps, each applied once and in one transaction.
//
// The steps are the files of sink/store/migrations/. 0001_contract.sql is the contract's schema exactly as it
// stands there, in the SQL that SQLite and Postgres share; a name with `.sqlite.` or `.postgres.` holds what
// only that one understands. A step may have both: the shared file goes first. A step that was released is
// never edited: a change is a new number.
#pragma once

#include <span>
#include <string_view>

#include "engine/clock.h"
#include "sink/store/store.h"

namespace kavach::sink {

class Connection;

struct Migration {
  int number;  // 1, 2, 3, ... without a gap
  std::string_view name;
  std::string_view sql;
};

std::span<const Migration> sqlite_migrations() noexcept;
std::span<const Migration> postgres_migrations() noexcept;

// Brings the database up to the last of `migrations`, which table schema_migrations remembers. Safe to call
// from several processes at once. Refuses a database that a newer version has migrated further. Writes
// nothing, and waits for no writer, when there is nothing to do.
StoreResult<void> migrate(Connection& connection, std::span<const Migration> migrations, WallMicros now);

}  // namespace kavach::sink
