// SQLite behind three small types: Connection, Statement, Transaction. No other file of Kavach sees
// sqlite3.h.
//
// Errors are StoreFailure; `retryable` is true for what passes by itself or by an operator's hand (locked,
// disk full, I/O error), false for a bug or a damaged file. None of the types is thread-safe; all of one
// connection belong to one thread at a time. A Statement or Transaction must not outlive its Connection.
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "engine/ids.h"
#include "sink/store/store.h"

struct sqlite3;
struct sqlite3_stmt;

namespace kavach::sink {

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

// A prepared statement with parameters ?1, ?2, ... Texts are bound without a copy: they must live until the
// statement is reset, which run(), scalar() and ~Rows() do.
class Statement {
 public:
  // The rows of one execution; resets the statement when it goes.
  class Rows {
   public:
    explicit Rows(Statement& statement) noexcept : statement_(statement) {}
    ~Rows() { statement_.reset(); }
    Rows(const Rows&) = delete;
    Rows& operator=(const Rows&) = delete;

    // False behind the last row.
    StoreResult<bool> next() { return statement_.step(); }
    // Columns count from 0. A NULL reads as 0 or "". A text is valid until next().
    std::int64_t integer(int column) const noexcept;
    std::string_view text(int column) const noexcept;
    bool is_null(int column) const noexcept;
    double number(int column) const noexcept;
    std::optional<std::int64_t> optional_integer(int column) const noexcept {
      return is_null(column) ? std::nullopt : std::optional(integer(column));
    }

   private:
    Statement& statement_;
  };

  // Executes a statement without rows; returns how many rows it changed.
  template <typename... Values>
  StoreResult<std::int64_t> run(const Values&... values) {
    bind_all(values...);
    return run_bound();
  }

  // Binds, for a following loop over rows().next().
  template <typename... Values>
  Rows rows(const Values&... values) {
    bind_all(values...);
    return Rows(*this);
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
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const noexcept;
  };
  explicit Statement(sqlite3_stmt* statement) noexcept : handle_(statement) {}

  template <typename... Values>
  void bind_all(const Values&... values) noexcept {
    int position = 0;
    (bind(++position, values), ...);
  }
  void bind(int position, std::string_view text) noexcept;
  void bind(int position, const UuidText& id) noexcept { bind(position, id.view()); }
  void bind(int position, NullableText text) noexcept;
  void bind(int position, double value) noexcept;
  void bind(int position, const std::optional<std::int64_t>& value) noexcept;
  void bind_integer(int position, std::int64_t value) noexcept;
  void bind_null(int position) noexcept;
  template <std::integral Integer>
  void bind(int position, Integer value) noexcept {
    bind_integer(position, static_cast<std::int64_t>(value));
  }

  StoreResult<bool> step();
  StoreResult<std::int64_t> run_bound();
  StoreResult<std::int64_t> scalar_bound();
  void reset() noexcept;

  std::unique_ptr<sqlite3_stmt, Finalize> handle_;
};

class Connection {
 public:
  // Creates the file (mode 0600) and its folder when missing. What the connection is set to, and why:
  // sqlite.cc.
  static StoreResult<Connection> open(const std::string& path);

  StoreResult<Statement> prepare(std::string_view sql);
  // One or several statements without parameters and without rows that matter.
  StoreResult<void> execute(const char* sql);
  // Outside any transaction.
  bool in_autocommit() const noexcept;
  // How long a lock held by another connection is waited for; at first kBusyTimeoutMs.
  static constexpr int kBusyTimeoutMs = 5'000;
  void set_busy_timeout(int milliseconds) noexcept;

 private:
  struct Close {
    void operator()(sqlite3* connection) const noexcept;
  };
  explicit Connection(sqlite3* connection) noexcept : handle_(connection) {}
  StoreResult<void> configure();
  StoreResult<void> switch_to_wal();

  std::unique_ptr<sqlite3, Close> handle_;
};

// Rolls back when it goes without commit().
class Transaction {
 public:
  // Takes the write lock at once (BEGIN IMMEDIATE): a transaction that reads first and then asks for the lock
  // can only fail when another writer came between.
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

}  // namespace kavach::sink
