// SQL behind three small types: Connection, Statement, Transaction, over SQLite (sqlite/connection.cc) or
// Postgres (postgres/session.cc). One SQL text serves both; the few places where they differ ask dialect().
//
// Errors are StoreFailure; `retryable` is true for what passes by itself or by an operator's hand (locked,
// disk full, I/O error, server away), false for a bug or a damaged file. None of the types is thread-safe;
// all of one connection belong to one thread at a time. A Statement or Transaction must not outlive its
// Connection.
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "engine/ids.h"
#include "sink/store/store.h"

namespace kavach::sink {

enum class Dialect : std::uint8_t { kSqlite, kPostgres };

// What a database gives for a prepared statement. Positions of parameters count from 1, columns from 0.
class StatementDriver {
 public:
  virtual ~StatementDriver() = default;
  virtual void bind_text(int position, std::string_view text) noexcept = 0;
  virtual void bind_null(int position) noexcept = 0;
  virtual void bind_integer(int position, std::int64_t value) noexcept = 0;
  virtual void bind_number(int position, double value) noexcept = 0;
  // False behind the last row.
  virtual StoreResult<bool> step() = 0;
  // Rows that the last execution changed. REQUIRES: step() said false.
  virtual std::int64_t changes() const noexcept = 0;
  virtual void reset() noexcept = 0;
  // Executes now or with the connection's next settle(). `into`: where the first column of the first row
  // goes.
  virtual StoreResult<void> queue(std::string* into) = 0;
  virtual std::int64_t integer(int column) const noexcept = 0;
  virtual std::string_view text(int column) const noexcept = 0;
  virtual double number(int column) const noexcept = 0;
  virtual bool is_null(int column) const noexcept = 0;
};

class ConnectionDriver {
 public:
  virtual ~ConnectionDriver() = default;
  virtual Dialect dialect() const noexcept = 0;
  virtual StoreResult<std::unique_ptr<StatementDriver>> prepare(std::string_view sql) = 0;
  virtual StoreResult<void> execute(const char* sql) = 0;
  virtual StoreResult<void> begin(bool to_write) = 0;
  virtual bool in_autocommit() const noexcept = 0;
  virtual StoreResult<void> settle() = 0;
  virtual void set_lock_timeout(int milliseconds) noexcept = 0;
};

// An id as the 36 characters that the schema stores, on the stack.
class UuidText {
 public:
  explicit UuidText(const Uuid& id) noexcept { id.write_text(chars_.data()); }
  std::string_view view() const noexcept { return {chars_.data(), chars_.size()}; }

 private:
  std::array<char, 36> chars_;
};

// A text column in which the domain's empty string is NULL.
struct NullableText {
  std::string_view text;
};

// A prepared statement with parameters ?1, ?2, ... Texts may be bound without a copy: they must live until
// the statement is reset, which run(), queue(), scalar() and ~Rows() do.
class Statement {
 public:
  // The rows of one execution; resets the statement when it goes.
  class Rows {
   public:
    explicit Rows(StatementDriver& statement) noexcept : statement_(statement) {}
    ~Rows() { statement_.reset(); }
    Rows(const Rows&) = delete;
    Rows& operator=(const Rows&) = delete;

    // False behind the last row.
    StoreResult<bool> next() { return statement_.step(); }
    // Columns count from 0. A NULL reads as 0 or "". A text is valid until next().
    std::int64_t integer(int column) const noexcept { return statement_.integer(column); }
    std::string_view text(int column) const noexcept { return statement_.text(column); }
    bool is_null(int column) const noexcept { return statement_.is_null(column); }
    double number(int column) const noexcept { return statement_.number(column); }
    std::optional<std::int64_t> optional_integer(int column) const noexcept {
      return is_null(column) ? std::nullopt : std::optional(integer(column));
    }
    std::optional<double> optional_number(int column) const noexcept {
      return is_null(column) ? std::nullopt : std::optional(number(column));
    }

   private:
    StatementDriver& statement_;
  };

  // Executes a statement without rows; returns how many rows it changed.
  template <typename... Values>
  StoreResult<std::int64_t> run(const Values&... values) {
    bind_all(values...);
    return run_bound();
  }

  // The same without waiting for the answer, where the database allows that: a failure may show only with
  // Connection::settle(), which must come before anything else is done with the connection.
  template <typename... Values>
  StoreResult<void> queue(const Values&... values) {
    bind_all(values...);
    return driver_->queue(nullptr);
  }
  // And with a row: its first column is in `into` after settle().
  template <typename... Values>
  StoreResult<void> queue_into(std::string& into, const Values&... values) {
    bind_all(values...);
    return driver_->queue(&into);
  }

  // Binds, for a following loop over rows().next().
  template <typename... Values>
  Rows rows(const Values&... values) {
    bind_all(values...);
    return Rows(*driver_);
  }

  // Calls each(rows) for every row, up to a failure.
  template <typename Each, typename... Values>
  StoreResult<void> for_each(Each each, const Values&... values) {
    auto found = rows(values...);
    for (;;) {
      const auto row = found.next();
      if (!row) return row.error();
      if (!*row) return {};
      each(std::as_const(found));
    }
  }

  // The first column of the only row. REQUIRES: the statement yields a row.
  template <typename... Values>
  StoreResult<std::int64_t> scalar(const Values&... values) {
    bind_all(values...);
    return scalar_bound();
  }

  Statement() = default;  // empty; REQUIRES for any use: assigned from Connection::prepare()

 private:
  friend class Connection;
  explicit Statement(std::unique_ptr<StatementDriver> driver) noexcept : driver_(std::move(driver)) {}

  template <typename... Values>
  void bind_all(const Values&... values) noexcept {
    int position = 0;
    (bind(++position, values), ...);
  }
  void bind(int position, std::string_view text) noexcept { driver_->bind_text(position, text); }
  void bind(int position, const UuidText& id) noexcept { bind(position, id.view()); }
  void bind(int position, NullableText text) noexcept {
    text.text.empty() ? driver_->bind_null(position) : bind(position, text.text);
  }
  void bind(int position, double value) noexcept { driver_->bind_number(position, value); }
  void bind(int position, const std::optional<std::int64_t>& value) noexcept {
    value ? driver_->bind_integer(position, *value) : driver_->bind_null(position);
  }
  void bind(int position, const std::optional<double>& value) noexcept {
    value ? driver_->bind_number(position, *value) : driver_->bind_null(position);
  }
  template <std::integral Integer>
  void bind(int position, Integer value) noexcept {
    driver_->bind_integer(position, static_cast<std::int64_t>(value));
  }

  StoreResult<std::int64_t> run_bound();
  StoreResult<std::int64_t> scalar_bound();

  std::unique_ptr<StatementDriver> driver_;
};

class Connection {
 public:
  explicit Connection(std::unique_ptr<ConnectionDriver> driver) noexcept : driver_(std::move(driver)) {}

  Dialect dialect() const noexcept { return driver_->dialect(); }
  StoreResult<Statement> prepare(std::string_view sql);
  // Each statement from its text, up to a failure.
  StoreResult<void> prepare_all(std::span<const std::pair<Statement*, std::string>> statements);
  // One or several statements without parameters and without rows that matter.
  StoreResult<void> execute(const char* sql) { return driver_->execute(sql); }
  // Outside any transaction.
  bool in_autocommit() const noexcept { return driver_->in_autocommit(); }
  // Waits for what was queued; the first failure.
  StoreResult<void> settle() { return driver_->settle(); }
  // How long a lock held by another connection is waited for; at first kLockTimeoutMs.
  static constexpr int kLockTimeoutMs = 5'000;
  void set_lock_timeout(int milliseconds) noexcept { driver_->set_lock_timeout(milliseconds); }

 private:
  friend class Transaction;
  std::unique_ptr<ConnectionDriver> driver_;
};

// Rolls back when it goes without commit().
class Transaction {
 public:
  // SQLite takes the write lock at once: a transaction that reads first and then asks for the lock can only
  // fail when another writer came between.
  static StoreResult<Transaction> begin_write(Connection& connection);
  // One consistent view for several reads.
  static StoreResult<Transaction> begin_read(Connection& connection);
  ~Transaction();
  Transaction(Transaction&& other) noexcept;
  Transaction& operator=(Transaction&&) = delete;

  StoreResult<void> commit();

 private:
  explicit Transaction(Connection& connection) noexcept : connection_(&connection) {}

  Connection* connection_;  // null: committed or moved from
};

// Creates the file (mode 0600) and its folder when missing. What the connection is set to, and why:
// sqlite/connection.cc.
StoreResult<Connection> connect_sqlite(const std::string& path);

}  // namespace kavach::sink
