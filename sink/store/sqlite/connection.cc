// SQLite as a driver of sql.h. No other file of Kavach sees sqlite3.h.
#include <fmt/format.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <system_error>
#include <thread>
#include <utility>

#include "engine/check.h"
#include "sink/store/sql.h"

namespace kavach::sink {
namespace {

// What may go away by itself or by an operator's hand, without a new version of Kavach or a new file.
bool is_retryable(int code) noexcept {
  switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:  // lost a race for the WAL's locks
    case SQLITE_FULL:
    case SQLITE_IOERR:
    case SQLITE_READONLY:  // a file system that was remounted after an error
    case SQLITE_CANTOPEN:  // also: out of file descriptors
    case SQLITE_NOMEM:
    case SQLITE_INTERRUPT:
      return true;
    default:  // not an enum: SQLite's codes are open-ended
      return false;
  }
}

// For what a row contains.
bool is_refusal(int code) noexcept {
  const int kind = code & 0xff;
  return kind == SQLITE_CONSTRAINT || kind == SQLITE_TOOBIG || kind == SQLITE_MISMATCH;
}

StoreFailure failure_of(sqlite3* connection, int code) {
  StoreFailure failure{
      fmt::format("sqlite: {} (code {})",
                  connection != nullptr ? sqlite3_errmsg(connection) : sqlite3_errstr(code), code),
      is_retryable(code)};
  failure.refused = is_refusal(code);
  return failure;
}

// Makes the file before SQLite does, so that its mode is 0600 from the first moment (the -wal and -shm files
// take it over). mknod() and not open(): closing a descriptor would drop the POSIX locks that other
// connections of this process hold on the same file.
StoreResult<void> create_file(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  std::error_code error;
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  if (!error && ::mknod(path.c_str(), S_IFREG | S_IRUSR | S_IWUSR, 0) != 0 && errno != EEXIST) {
    error.assign(errno, std::system_category());
  }
  if (error) return StoreFailure{fmt::format("{}: cannot be created: {}", path, error.message()), true};
  return {};
}

class SqliteStatement final : public StatementDriver {
 public:
  explicit SqliteStatement(sqlite3_stmt* statement) noexcept : handle_(statement) {}

  // Binding can only fail by a bug: the position is wrong, or the statement runs. Nothing is copied.
  void bind_text(int position, std::string_view text) noexcept override {
    const char* bytes = text.data() != nullptr ? text.data() : "";
    const int code =
        sqlite3_bind_text64(handle_.get(), position, bytes, text.size(), SQLITE_STATIC, SQLITE_UTF8);
    KAVACH_CHECK(code == SQLITE_OK, "a text could not be bound");
  }
  void bind_null(int position) noexcept override {
    const int code = sqlite3_bind_null(handle_.get(), position);
    KAVACH_CHECK(code == SQLITE_OK, "a NULL could not be bound");
  }
  void bind_integer(int position, std::int64_t value) noexcept override {
    const int code = sqlite3_bind_int64(handle_.get(), position, value);
    KAVACH_CHECK(code == SQLITE_OK, "an integer could not be bound");
  }
  void bind_number(int position, double value) noexcept override {
    const int code = sqlite3_bind_double(handle_.get(), position, value);
    KAVACH_CHECK(code == SQLITE_OK, "a number could not be bound");
  }

  StoreResult<bool> step() override {
    const int code = sqlite3_step(handle_.get());
    if (code == SQLITE_ROW) return true;
    if (code == SQLITE_DONE) return false;
    return failure_of(sqlite3_db_handle(handle_.get()), code);
  }
  std::int64_t changes() const noexcept override {
    return sqlite3_changes64(sqlite3_db_handle(handle_.get()));
  }
  void reset() noexcept override { sqlite3_reset(handle_.get()); }
  // A statement has made all its changes when its first row comes.
  StoreResult<void> queue(std::string* into) override {
    const auto row = step();
    if (row && *row && into != nullptr) *into = text(0);
    reset();
    if (!row) return row.error();
    return {};
  }

  std::int64_t integer(int column) const noexcept override {
    return sqlite3_column_int64(handle_.get(), column);
  }
  std::string_view text(int column) const noexcept override {
    const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(handle_.get(), column));
    if (bytes == nullptr) return {};
    return {bytes, static_cast<std::size_t>(sqlite3_column_bytes(handle_.get(), column))};
  }
  double number(int column) const noexcept override { return sqlite3_column_double(handle_.get(), column); }
  bool is_null(int column) const noexcept override {
    return sqlite3_column_type(handle_.get(), column) == SQLITE_NULL;
  }

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const noexcept { sqlite3_finalize(statement); }
  };
  std::unique_ptr<sqlite3_stmt, Finalize> handle_;
};

class SqliteConnection final : public ConnectionDriver {
 public:
  explicit SqliteConnection(sqlite3* connection) noexcept : handle_(connection) {}
  StoreResult<void> configure();

  Dialect dialect() const noexcept override { return Dialect::kSqlite; }
  StoreResult<std::unique_ptr<StatementDriver>> prepare(std::string_view sql) override {
    sqlite3_stmt* raw = nullptr;
    const int code = sqlite3_prepare_v3(handle_.get(), sql.data(), static_cast<int>(sql.size()),
                                        SQLITE_PREPARE_PERSISTENT, &raw, nullptr);
    if (code != SQLITE_OK) return failure_of(handle_.get(), code);
    return std::unique_ptr<StatementDriver>(std::make_unique<SqliteStatement>(raw));
  }
  StoreResult<void> execute(const char* sql) override {
    const int code = sqlite3_exec(handle_.get(), sql, nullptr, nullptr, nullptr);
    if (code != SQLITE_OK) return failure_of(handle_.get(), code);
    return {};
  }
  StoreResult<void> begin(bool to_write) override { return execute(to_write ? "BEGIN IMMEDIATE" : "BEGIN"); }
  bool in_autocommit() const noexcept override { return sqlite3_get_autocommit(handle_.get()) != 0; }
  StoreResult<void> settle() override { return {}; }
  void set_lock_timeout(int milliseconds) noexcept override {
    sqlite3_busy_timeout(handle_.get(), milliseconds);
  }

 private:
  struct Close {
    void operator()(sqlite3* connection) const noexcept { sqlite3_close_v2(connection); }
  };
  StoreResult<void> switch_to_wal();

  std::unique_ptr<sqlite3, Close> handle_;
};

StoreResult<void> SqliteConnection::configure() {
  sqlite3_extended_result_codes(handle_.get(), 1);
  // Other processes write too (`kavachd key create` beside `kavachd serve`); a writer holds the lock for some
  // hundred milliseconds at most.
  set_lock_timeout(Connection::kLockTimeoutMs);
  // - WAL: readers and the one writer do not wait for each other, and a commit is one append and one sync.
  // - synchronous=FULL: a commit is on the disk before the shipper lets the journal drop its copy. With
  // NORMAL
  //   a power cut may take back the last commits whose frames the journal has recycled: data would be lost.
  //   At the shipper's sizes the sync costs nothing measurable.
  // - wal_autocheckpoint 8192 pages = 32 MiB: an index page that ten transactions touch is copied into the
  // main
  //   file once. journal_size_limit cuts a WAL that a long reader has kept growing.
  // - cache 64 MiB: the upper levels of all indexes, and the leaves of the last hour.
  // - mmap_size 0: behind a memory map an I/O error is a SIGBUS; here it must be a value.
  // - temp_store MEMORY: no sorting to files in /tmp.
  auto set = execute(
      "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA wal_autocheckpoint = 8192;"
      "PRAGMA journal_size_limit = 134217728; PRAGMA cache_size = -65536; PRAGMA mmap_size = 0;"
      "PRAGMA temp_store = MEMORY;");
  if (!set) return set;
  return switch_to_wal();
}

// A new file is switched once, under an exclusive lock for which SQLite does not wait, whatever the busy
// timeout says: processes that open the same new file together would all fail but one.
StoreResult<void> SqliteConnection::switch_to_wal() {
  constexpr auto kPause = std::chrono::milliseconds(10);
  for (int waited_ms = 0;; waited_ms += static_cast<int>(kPause.count())) {
    auto switched = execute("PRAGMA journal_mode = WAL;");
    if (switched || !switched.error().retryable || waited_ms >= Connection::kLockTimeoutMs) return switched;
    std::this_thread::sleep_for(kPause);
  }
}

}  // namespace

StoreResult<Connection> connect_sqlite(const std::string& path) {
  if (auto created = create_file(path); !created) return created.error();
  sqlite3* raw = nullptr;
  // NOMUTEX: a connection belongs to one thread at a time.
  const int code = sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
  auto connection = std::make_unique<SqliteConnection>(raw);
  if (code != SQLITE_OK) {
    StoreFailure failure = failure_of(raw, code);
    failure.message = path + ": " + failure.message;
    return failure;
  }
  if (auto configured = connection->configure(); !configured) {
    return StoreFailure{path + ": " + configured.error().message, configured.error().retryable};
  }
  return Connection(std::move(connection));
}

}  // namespace kavach::sink
