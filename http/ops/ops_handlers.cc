#include "http/ops/ops_handlers.h"

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

#include "engine/money.h"
#include "engine/timestamp.h"

namespace kavach::http {

Response refuse_body() noexcept {
  return {.status = 413, .body = R"({"detail":"Request body too large"})"};
}

void HealthzHandler::handle(Exchange& exchange) {
  exchange.answer({.body = R"({"status":"ok"})"});
}

void ReadyzHandler::handle(Exchange& exchange) {
  if (health_.draining) return exchange.answer({.status = 503, .body = R"({"status":"draining"})"});
  if (!health_.ready) return exchange.answer({.status = 503, .body = R"({"status":"starting"})"});
  if (health_.journal_ok && !health_.journal_ok())
    return exchange.answer({.status = 503, .body = R"({"status":"journal failed"})"});
  exchange.answer({.body = R"({"status":"ready"})"});
}

namespace {

constexpr std::string_view kNotConfigured = "not_configured";

std::string_view word(bool ok) {
  return ok ? "ok" : "down";
}

double seconds(std::int64_t micros) {
  return static_cast<double>(micros) / static_cast<double>(kMicrosPerSecond);
}

std::string follower_lag(std::string_view name, const FollowerHealth& state) {
  return fmt::format(R"(,"{}":{{"events":{},"bytes":{},"seconds":{:.3f}}})", name, state.lag_events,
                     state.lag_bytes, seconds(state.lag_us));
}

}  // namespace

void StatusHandler::handle(Exchange& exchange) {
  const bool database = health_.database_ok();
  bool ok = database;
  std::string_view redis_word = kNotConfigured;
  std::string fleet = "null";
  if (health_.fleet) {
    const FleetHealth state = health_.fleet();
    const bool redis = state.connected && !state.degraded_since;
    ok = ok && redis;
    redis_word = word(redis);
    fleet = fmt::format(
        R"({{"learning":{},"degraded_since":{},"leased_events":{},"unmirrored_cost":{}}})", state.learning,
        state.degraded_since ? '"' + format_timestamp(*state.degraded_since) + '"' : "null",
        state.held_events, static_cast<double>(state.unmirrored_cost) / static_cast<double>(kNanoPerDollar));
  }
  std::string_view journal_word = kNotConfigured;
  if (health_.journal_ok) {
    const bool journal = health_.journal_ok();
    ok = ok && journal;
    journal_word = word(journal);
  }
  std::string more;
  if (health_.store) more += follower_lag("store_lag", health_.store());
  std::string_view kafka_word = kNotConfigured;
  if (health_.kafka) {
    const FollowerHealth state = health_.kafka();
    ok = ok && state.ok;
    kafka_word = word(state.ok);
    more += follower_lag("kafka_lag", state);
    // No text of others: a topic's name is letters, digits and `._-`.
    if (!state.problem.empty()) more += fmt::format(R"(,"kafka_problem":"{}")", state.problem);
  }
  if (health_.receipts) {
    const ReceiptCounts receipts = health_.receipts();
    more += fmt::format(R"(,"receipts":{{"journal":{},"broker":{},"waiting":{}}})", receipts.journal,
                        receipts.broker, receipts.waiting);
  }
  if (health_.writer) {
    const WriterHealth state = health_.writer();
    ok = ok && state.ok;
    more +=
        fmt::format(R"(,"writer_lag":{{"records":{},"seconds":{}}})", state.lag_records, state.lag_seconds);
  }
  const std::string body = fmt::format(
      R"({{"status":"{}","database":"{}","redis":"{}","kafka":"{}","journal":"{}","version":"{}",)"
      R"("fleet":{}{}}})",
      ok ? "ok" : "degraded", word(database), redis_word, kafka_word, journal_word, KAVACH_VERSION, fleet,
      more);
  exchange.answer({.body = body});
}

void MetricsHandler::handle(Exchange& exchange) {
  const bool queued = workers_.try_post([this, &exchange] {
    // The exchange is answered on its own shard; it lives until then.
    shard_.post([&exchange, text = registry_.expose()] {
      exchange.answer({.body = text, .content_type = "text/plain; version=0.0.4; charset=utf-8"});
    });
  });
  if (!queued) {
    exchange.answer({.status = 429,
                     .body = R"({"detail":"Server is busy, retry later"})",
                     .headers = "Retry-After: 1\r\n"});
  }
}

}  // namespace kavach::http
