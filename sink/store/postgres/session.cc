#include "sink/store/postgres/session.h"

#include <fmt/format.h>
#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <utility>
#include <vector>

#include "engine/check.h"
#include "engine/clock.h"

namespace kavach::sink {
namespace {

// Statements that are sent before their answers are read: enough to make round trips cheap, few enough that
// what waits in either direction stays small.
constexpr std::size_t kQueueMax = 1'000;

// By SQLSTATE's class: what passes by itself or by an operator's hand.
bool is_retryable(std::string_view state) noexcept {
  constexpr std::string_view kClasses[] = {"08", "28", "3D", "40", "53", "54", "55", "57", "58"};
  return state == "25006" ||  // a standby: read only
         std::find(std::begin(kClasses), std::end(kClasses), state.substr(0, 2)) != std::end(kClasses);
}

// For what a row contains: values, constraints, more than fits into an index.
bool is_refusal(std::string_view state) noexcept {
  const std::string_view kind = state.substr(0, 2);
  return kind == "22" || kind == "23" || kind == "54";
}

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

// ?1 as Postgres writes it, $1. None of Kavach's statements has a question mark elsewhere.
std::string with_dollars(std::string_view sql) {
  std::string text(sql);
  std::replace(text.begin(), text.end(), '?', '$');
  return text;
}

}  // namespace

class PostgresStatement final : public StatementDriver {
 public:
  PostgresStatement(PostgresSession& session, std::string name, std::string sql)
      : session_(session), name_(std::move(name)), sql_(std::move(sql)) {}

  void bind_text(int position, std::string_view text) noexcept override {
    std::string& value = at(position);
    value.clear();
    for (;;) {
      const std::size_t nul = text.find('\0');
      value.append(text.substr(0, nul));
      if (nul == std::string_view::npos) return;
      value.append("\xef\xbf\xbd");
      text.remove_prefix(nul + 1);
    }
  }
  void bind_null(int position) noexcept override {
    at(position);
    is_null_[static_cast<std::size_t>(position - 1)] = true;
  }
  void bind_integer(int position, std::int64_t value) noexcept override {
    at(position) = std::to_string(value);
  }
  void bind_number(int position, double value) noexcept override {
    char digits[32];
    const auto written = std::to_chars(digits, digits + sizeof(digits), value);
    at(position).assign(digits, written.ptr);
  }

  StoreResult<bool> step() override {
    if (!running_) {
      if (auto sent = send(false); !sent) return sent.error();
      running_ = true;
      changes_ = 0;
    }
    row_.reset();
    for (;;) {
      auto result = session_.next_result();
      if (!result) {
        running_ = false;
        return result.error();
      }
      if (*result == nullptr) {
        running_ = false;
        return false;
      }
      const ExecStatusType status = PQresultStatus(result->get());
      if (status == PGRES_SINGLE_TUPLE) {
        row_ = std::move(*result);
        return true;
      }
      if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
        StoreFailure failure = session_.failure_of(result->get());
        running_ = false;
        if (auto rest = session_.drain(); !rest) return rest.error();
        return failure;
      }
      const std::string_view count = PQcmdTuples(result->get());
      std::from_chars(count.data(), count.data() + count.size(), changes_);
    }
  }
  std::int64_t changes() const noexcept override { return changes_; }
  void reset() noexcept override {
    row_.reset();
    // A failure here is the connection's, which shows with the next call.
    if (std::exchange(running_, false)) static_cast<void>(session_.drain());
  }

  StoreResult<void> queue(std::string* into) override {
    if (auto sent = send(true); !sent) return sent.error();
    return session_.queued(into);
  }

  std::int64_t integer(int column) const noexcept override {
    const std::string_view digits = text(column);
    std::int64_t value = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return value;
  }
  std::string_view text(int column) const noexcept override {
    return {PQgetvalue(row_.get(), 0, column), static_cast<std::size_t>(PQgetlength(row_.get(), 0, column))};
  }
  double number(int column) const noexcept override {
    const std::string_view digits = text(column);
    double value = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return value;
  }
  bool is_null(int column) const noexcept override { return PQgetisnull(row_.get(), 0, column) != 0; }

 private:
  std::string& at(int position) {
    const auto index = static_cast<std::size_t>(position - 1);
    if (values_.size() <= index) {
      values_.resize(index + 1);
      is_null_.resize(index + 1);
    }
    is_null_[index] = false;
    return values_[index];
  }

  // Each connection prepares the statement when it first needs it.
  StoreResult<void> prepare_here() {
    if (generation_ == session_.generation()) return {};
    if (PQsendPrepare(session_.connection_.get(), name_.c_str(), sql_.c_str(), 0, nullptr) != 1)
      return session_.lose(session_.last_error());
    if (auto prepared = session_.drain(); !prepared) return prepared.error();
    generation_ = session_.generation();
    return {};
  }

  StoreResult<void> send(bool to_queue) {
    if (!session_.in_transaction_ || !to_queue) {
      // What is outside of any transaction may have lost its connection long ago.
      if (auto ready = session_.ready(); !ready) return ready.error();
    }
    if (session_.connection_ == nullptr) return StoreFailure{"postgres: the connection was lost", true};
    if (generation_ != session_.generation()) {
      if (auto settled = session_.settle(); !settled) return settled.error();
      if (auto prepared = prepare_here(); !prepared) return prepared.error();
    }
    pg_conn* connection = session_.connection_.get();
    if (to_queue && PQpipelineStatus(connection) == PQ_PIPELINE_OFF) PQenterPipelineMode(connection);
    texts_.clear();
    lengths_.clear();
    for (std::size_t i = 0; i < values_.size(); ++i) {
      texts_.push_back(is_null_[i] ? nullptr : values_[i].c_str());
      lengths_.push_back(static_cast<int>(values_[i].size()));
    }
    if (PQsendQueryPrepared(connection, name_.c_str(), static_cast<int>(values_.size()), texts_.data(),
                            lengths_.data(), nullptr, 0) != 1)
      return session_.lose(session_.last_error());
    if (!to_queue) PQsetSingleRowMode(connection);
    return {};
  }

  PostgresSession& session_;
  const std::string name_, sql_;
  std::uint64_t generation_ = 0;
  std::vector<std::string> values_;
  std::vector<bool> is_null_;
  std::vector<const char*> texts_;
  std::vector<int> lengths_;
  bool running_ = false;
  PostgresSession::ResultPtr row_;
  std::int64_t changes_ = 0;
};

void PostgresSession::Clear::operator()(pg_result* result) const noexcept {
  PQclear(result);
}

void PostgresSession::Finish::operator()(pg_conn* connection) const noexcept {
  PQfinish(connection);
}

std::string PostgresSession::last_error() const {
  return trimmed(PQerrorMessage(connection_.get()));
}

StoreFailure PostgresSession::failure_of(const pg_result* result) const {
  const char* state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
  const char* message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
  if (state == nullptr) return {"postgres: " + trimmed(PQresultErrorMessage(result)), true};
  StoreFailure failure{
      fmt::format("postgres: {} (SQLSTATE {})", message != nullptr ? message : "error", state),
      is_retryable(state)};
  failure.refused = is_refusal(state);
  return failure;
}

StoreFailure PostgresSession::lose(std::string_view why) {
  StoreFailure failure{fmt::format("postgres: {}", why), true};
  connection_.reset();
  queue_.clear();
  return failure;
}

StoreResult<void> PostgresSession::ready() {
  if (in_transaction_) {
    if (connection_ != nullptr) return {};
    return StoreFailure{"postgres: the connection was lost", true};
  }
  if (connection_ != nullptr && PQstatus(connection_.get()) != CONNECTION_OK) connection_.reset();
  if (connection_ == nullptr) {
    if (auto connected = connect(); !connected) return connected.error();
  }
  if (wanted_lock_timeout_ms_ != lock_timeout_ms_) {
    lock_timeout_ms_ = wanted_lock_timeout_ms_;
    const std::string set = fmt::format("SET lock_timeout = {}", lock_timeout_ms_);
    if (PQsendQuery(connection_.get(), set.c_str()) != 1) return lose(last_error());
    return drain();
  }
  return {};
}

StoreResult<void> PostgresSession::connect() {
  queue_.clear();
  const std::string timeout_s = std::to_string(std::max<std::int64_t>(2, timeout_ms_ / 1'000));
  const std::string tcp_timeout_ms = std::to_string(timeout_ms_);
  // The URL is the first, so that its own parameters yield to what Kavach relies on.
  const char* names[] = {"dbname",
                         "connect_timeout",
                         "tcp_user_timeout",
                         "keepalives_idle",
                         "client_encoding",
                         "fallback_application_name",
                         nullptr};
  const char* values[] = {url_.c_str(), timeout_s.c_str(), tcp_timeout_ms.c_str(), "10", "UTF8", "kavachd",
                          nullptr};
  connection_.reset(PQconnectdbParams(names, values, 1));
  if (connection_ == nullptr) return StoreFailure{"postgres: out of memory", true};
  if (PQstatus(connection_.get()) != CONNECTION_OK) return lose(last_error());
  PQsetnonblocking(connection_.get(), 1);
  PQsetNoticeReceiver(
      connection_.get(), [](void*, const PGresult*) {}, nullptr);
  ++generation_;
  lock_timeout_ms_ = wanted_lock_timeout_ms_;
  // A backend whose client is gone ends, and its locks with it. No statement here is worth the 10 ms that it
  // takes to start helpers, which Postgres would do for sums of a thousand rows and more.
  const std::string set = fmt::format(
      "SET client_connection_check_interval = 1000; SET standard_conforming_strings = on; "
      "SET max_parallel_workers_per_gather = 0; "
      "SET lock_timeout = {}",
      lock_timeout_ms_);
  if (PQsendQuery(connection_.get(), set.c_str()) != 1) return lose(last_error());
  return drain();
}

StoreResult<void> PostgresSession::wait(short events) {
  pollfd ready{PQsocket(connection_.get()), events, 0};
  const MonoMicros until = system_clock().mono() + timeout_ms_ * kMicrosPerMilli;
  for (;;) {
    const std::int64_t left_ms = (until - system_clock().mono()) / kMicrosPerMilli;
    const int polled = ::poll(&ready, 1, static_cast<int>(std::max<std::int64_t>(0, left_ms)));
    if (polled > 0) return {};
    if (polled == 0 || errno != EINTR)
      return lose(fmt::format("the server has not answered within {} ms", timeout_ms_));
  }
}

StoreResult<void> PostgresSession::flush() {
  for (;;) {
    const int left = PQflush(connection_.get());
    if (left == 0) return {};
    if (left < 0) return lose(last_error());
    if (auto waited = wait(POLLIN | POLLOUT); !waited) return waited.error();
    if (PQconsumeInput(connection_.get()) != 1) return lose(last_error());
  }
}

StoreResult<PostgresSession::ResultPtr> PostgresSession::next_result() {
  if (connection_ == nullptr) return StoreFailure{"postgres: the connection was lost", true};
  if (auto flushed = flush(); !flushed) return flushed.error();
  while (PQisBusy(connection_.get()) != 0) {
    if (auto waited = wait(POLLIN); !waited) return waited.error();
    if (PQconsumeInput(connection_.get()) != 1) return lose(last_error());
  }
  ResultPtr result(PQgetResult(connection_.get()));
  if (PQstatus(connection_.get()) != CONNECTION_OK) {
    if (result == nullptr) return lose(last_error());
    StoreFailure failure = failure_of(result.get());
    result.reset();
    lose("");
    failure.retryable = true;
    return failure;
  }
  return result;
}

StoreResult<void> PostgresSession::drain() {
  StoreResult<void> outcome{};
  for (;;) {
    auto result = next_result();
    if (!result) return result.error();
    if (*result == nullptr) return outcome;
    const ExecStatusType status = PQresultStatus(result->get());
    if (status == PGRES_FATAL_ERROR && outcome) outcome = failure_of(result->get());
    if (status == PGRES_COPY_IN) return outcome;
  }
}

StoreResult<void> PostgresSession::execute(const char* sql) {
  const std::string_view text = sql;
  // Whatever becomes of it, the transaction is over.
  const bool ends = text == "COMMIT" || text == "ROLLBACK";
  auto executed = [&]() -> StoreResult<void> {
    if (auto is_ready = ready(); !is_ready) return is_ready.error();
    if (PQsendQuery(connection_.get(), sql) != 1) return lose(last_error());
    return drain();
  }();
  if (ends) in_transaction_ = false;
  return executed;
}

StoreResult<void> PostgresSession::begin(bool to_write) {
  const char* const sql = to_write ? "BEGIN" : "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
  in_transaction_ = false;
  auto begun = execute(sql);
  // A connection that went while nobody used it shows only now, and nothing is lost by taking another one.
  if (!begun && connection_ == nullptr) begun = execute(sql);
  in_transaction_ = begun.has_value();
  return begun;
}

StoreResult<std::unique_ptr<StatementDriver>> PostgresSession::prepare(std::string_view sql) {
  return std::unique_ptr<StatementDriver>(
      std::make_unique<PostgresStatement>(*this, fmt::format("kavach_{}", ++statements_), with_dollars(sql)));
}

StoreResult<void> PostgresSession::queued(std::string* into) {
  queue_.push_back(into);
  if (queue_.size() < kQueueMax) return {};
  return settle();
}

StoreResult<void> PostgresSession::settle() {
  if (connection_ == nullptr) {
    if (in_transaction_) return StoreFailure{"postgres: the connection was lost", true};
    return {};
  }
  if (PQpipelineStatus(connection_.get()) == PQ_PIPELINE_OFF) return {};
  if (PQpipelineSync(connection_.get()) != 1) return lose(last_error());
  StoreResult<void> outcome{};
  for (;;) {
    auto result = next_result();
    if (!result) return result.error();
    if (*result == nullptr) {  // behind each statement
      if (!queue_.empty()) queue_.pop_front();
      continue;
    }
    const ExecStatusType status = PQresultStatus(result->get());
    if (status == PGRES_PIPELINE_SYNC) break;
    if (status == PGRES_FATAL_ERROR && outcome) outcome = failure_of(result->get());
    if (status == PGRES_TUPLES_OK && PQntuples(result->get()) > 0 && !queue_.empty() &&
        queue_.front() != nullptr)
      queue_.front()->assign(PQgetvalue(result->get(), 0, 0),
                             static_cast<std::size_t>(PQgetlength(result->get(), 0, 0)));
  }
  queue_.clear();
  if (PQexitPipelineMode(connection_.get()) != 1) return lose(last_error());
  return outcome;
}

StoreResult<void> PostgresSession::copy_in(const char* sql, std::string_view bytes) {
  if (auto started = execute(sql); !started) return started.error();
  constexpr std::size_t kChunk = 1 << 20;
  while (!bytes.empty()) {
    const std::string_view chunk = bytes.substr(0, kChunk);
    const int taken = PQputCopyData(connection_.get(), chunk.data(), static_cast<int>(chunk.size()));
    if (taken < 0) return lose(last_error());
    if (taken > 0) bytes.remove_prefix(chunk.size());
    if (auto flushed = flush(); !flushed) return flushed.error();
  }
  while (PQputCopyEnd(connection_.get(), nullptr) == 0) {
    if (auto flushed = flush(); !flushed) return flushed.error();
  }
  return drain();
}

StoreResult<bool> PostgresSession::wait_for_notice(int wake_fd, int timeout_ms) {
  if (connection_ == nullptr) return StoreFailure{"postgres: the connection was lost", true};
  pollfd ready[] = {{PQsocket(connection_.get()), POLLIN, 0}, {wake_fd, POLLIN, 0}};
  ::poll(ready, 2, timeout_ms);
  if (PQconsumeInput(connection_.get()) != 1) return lose(last_error());
  bool any = false;
  while (PGnotify* notice = PQnotifies(connection_.get())) {
    PQfreemem(notice);
    any = true;
  }
  return any;
}

StoreResult<std::unique_ptr<PostgresSession>> connect_postgres(const std::string& url,
                                                               std::int64_t timeout_ms) {
  char* problem = nullptr;
  PQconninfoOption* parsed = PQconninfoParse(url.c_str(), &problem);
  PQfreemem(problem);  // not shown: it may repeat the password
  if (parsed == nullptr) return StoreFailure{"postgres: the URL cannot be read", false};
  PQconninfoFree(parsed);
  auto session = std::make_unique<PostgresSession>(url, timeout_ms);
  if (auto connected = session->ready(); !connected) return connected.error();
  return session;
}

}  // namespace kavach::sink
