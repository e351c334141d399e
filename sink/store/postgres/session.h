// Session: one connection to Postgres as a driver of sql.h, over libpq. Only this folder sees libpq-fe.h.
//
// Connects when it is used and there is no connection; prepared statements follow to the new one. No call
// waits longer than `timeout_ms` for a server that says nothing: then the connection is given up, as when it
// is lost, and the failure is retryable. In a transaction nothing is connected anew: its statements fail
// until it has ended.
//
// Postgres has no NUL in a text: it is stored as U+FFFD.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>

#include "sink/store/sql.h"

struct pg_conn;
struct pg_result;

namespace kavach::sink {

class PostgresSession final : public ConnectionDriver {
 public:
  struct Clear {
    void operator()(pg_result* result) const noexcept;
  };
  using ResultPtr = std::unique_ptr<pg_result, Clear>;

  PostgresSession(std::string url, std::int64_t timeout_ms) : url_(std::move(url)), timeout_ms_(timeout_ms) {}

  // Makes sure that there is a connection.
  StoreResult<void> ready();
  // Changes with every new connection: what belongs to a connection (temporary tables) is gone.
  std::uint64_t generation() const noexcept { return generation_; }
  // `sql` is a COPY ... FROM STDIN; `bytes` is all of its data.
  StoreResult<void> copy_in(const char* sql, std::string_view bytes);
  // For ChangeListener: waits for a notice up to `timeout_ms` or until `wake_fd` is readable. True: there was
  // one.
  StoreResult<bool> wait_for_notice(int wake_fd, int timeout_ms);

  Dialect dialect() const noexcept override { return Dialect::kPostgres; }
  StoreResult<std::unique_ptr<StatementDriver>> prepare(std::string_view sql) override;
  StoreResult<void> execute(const char* sql) override;
  StoreResult<void> begin(bool to_write) override;
  // A transaction whose connection is lost goes on until somebody ends it: nothing may begin in its place
  // unseen.
  bool in_autocommit() const noexcept override { return !in_transaction_; }
  StoreResult<void> settle() override;
  void set_lock_timeout(int milliseconds) noexcept override { wanted_lock_timeout_ms_ = milliseconds; }

 private:
  friend class PostgresStatement;
  struct Finish {
    void operator()(pg_conn* connection) const noexcept;
  };

  StoreResult<void> connect();
  StoreResult<void> flush();
  // The next result; null where a command's results end.
  StoreResult<ResultPtr> next_result();
  // Reads a command's results to their end.
  StoreResult<void> drain();
  StoreResult<void> wait(short events);
  StoreFailure lose(std::string_view why);
  StoreFailure failure_of(const pg_result* result) const;
  std::string last_error() const;
  // One queued statement more, in pipeline mode.
  StoreResult<void> queued(std::string* into);

  const std::string url_;
  const std::int64_t timeout_ms_;
  std::unique_ptr<pg_conn, Finish> connection_;
  std::uint64_t generation_ = 0;
  std::uint64_t statements_ = 0;  // names them
  bool in_transaction_ = false;
  int wanted_lock_timeout_ms_ = Connection::kLockTimeoutMs;
  int lock_timeout_ms_ = 0;  // what the server knows
  std::deque<std::string*> queue_;
};

// Checks the URL; connects. Its failure does not show the URL.
StoreResult<std::unique_ptr<PostgresSession>> connect_postgres(const std::string& url,
                                                               std::int64_t timeout_ms);

}  // namespace kavach::sink
