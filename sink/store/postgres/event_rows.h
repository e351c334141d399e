// Event rows in Postgres: a COPY into a temporary table, and from there one statement that keeps what is new;
// days of events as partitions.
#pragma once

#include <cstdint>
#include <memory>

#include "sink/store/event_rows.h"
#include "sink/store/postgres/session.h"

namespace kavach::sink {

struct PostgresRowsOptions {
  std::int64_t dedup_window_us = kRememberForEver;
  std::int64_t retention_days = 0;  // 0: for ever
};

// REQUIRES: `session` is the driver of `connection`; both outlive the rows.
StoreResult<std::unique_ptr<EventRows>> make_postgres_rows(Connection& connection, PostgresSession& session,
                                                           const PostgresRowsOptions& options);

}  // namespace kavach::sink
