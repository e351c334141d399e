#include "sink/store/sql.h"

#include "engine/check.h"

namespace kavach::sink {

StoreResult<std::int64_t> Statement::run_bound() {
  const Rows execution(*driver_);
  for (;;) {
    const auto row = driver_->step();
    if (!row) return row.error();
    if (!*row) return driver_->changes();
  }
}

StoreResult<std::int64_t> Statement::scalar_bound() {
  const Rows result(*driver_);
  const auto row = driver_->step();
  if (!row) return row.error();
  KAVACH_CHECK(*row, "the statement yields a row");
  return result.integer(0);
}

StoreResult<Statement> Connection::prepare(std::string_view sql) {
  auto driver = driver_->prepare(sql);
  if (!driver) return driver.error();
  return Statement(std::move(*driver));
}

StoreResult<void> Connection::prepare_all(std::span<const std::pair<Statement*, std::string>> statements) {
  for (const auto& [statement, sql] : statements) {
    auto prepared = prepare(sql);
    if (!prepared) return prepared.error();
    *statement = std::move(*prepared);
  }
  return {};
}

StoreResult<Transaction> Transaction::begin_write(Connection& connection) {
  if (auto begun = connection.driver_->begin(true); !begun) return begun.error();
  return Transaction(connection);
}

StoreResult<Transaction> Transaction::begin_read(Connection& connection) {
  if (auto begun = connection.driver_->begin(false); !begun) return begun.error();
  return Transaction(connection);
}

Transaction::Transaction(Transaction&& other) noexcept
    : connection_(std::exchange(other.connection_, nullptr)) {}

Transaction::~Transaction() {
  // After some failures (disk full, I/O, a lost connection) the database has rolled back already.
  if (connection_ == nullptr || connection_->in_autocommit()) return;
  static_cast<void>(connection_->settle());
  // It cannot fail in a way that leaves anything behind: what is not committed is gone at the latest when the
  // connection closes.
  static_cast<void>(connection_->execute("ROLLBACK"));
}

StoreResult<void> Transaction::commit() {
  auto committed = connection_->execute("COMMIT");
  if (committed) connection_ = nullptr;
  return committed;
}

}  // namespace kavach::sink
