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
  if (!health_.journal_ok())
    return exchange.answer({.status = 503, .body = R"({"status":"journal failed"})"});
  exchange.answer({.body = R"({"status":"ready"})"});
}

void StatusHandler::handle(Exchange& exchange) {
  const bool database = health_.database_ok();
  const bool journal = health_.journal_ok();
  const auto word = [](bool ok) { return ok ? "ok" : "down"; };
  bool redis = true;
  std::string_view redis_word = "not_configured";
  std::string fleet = "null";
  if (health_.fleet) {
    const FleetHealth state = health_.fleet();
    redis = state.connected && !state.degraded_since;
    redis_word = word(redis);
    fleet = fmt::format(
        R"({{"learning":{},"degraded_since":{},"leased_events":{},"unmirrored_cost":{}}})", state.learning,
        state.degraded_since ? '"' + format_timestamp(*state.degraded_since) + '"' : "null",
        state.held_events, static_cast<double>(state.unmirrored_cost) / static_cast<double>(kNanoPerDollar));
  }
  bool kafka = true;
  std::string_view kafka_word = "not_configured";
  std::string follower, problem;
  if (health_.kafka) {
    const FollowerHealth state = health_.kafka();
    kafka = state.ok;
    problem = state.problem;
    kafka_word = word(kafka);
    follower = fmt::format(R"(,"kafka_lag":{{"batches":{},"bytes":{},"seconds":{:.3f}}})", state.lag_frames,
                           state.lag_bytes,
                           static_cast<double>(state.lag_us) / static_cast<double>(kMicrosPerSecond));
  }
  if (!problem.empty()) {
    // No text of others: a topic's name is letters, digits and `._-`.
    follower += fmt::format(R"(,"kafka_problem":"{}")", problem);
  }
  if (health_.receipts) {
    const ReceiptCounts receipts = health_.receipts();
    follower += fmt::format(R"(,"receipts":{{"journal":{},"broker":{},"waiting":{}}})", receipts.journal,
                            receipts.broker, receipts.waiting);
  }
  const std::string body = fmt::format(
      R"({{"status":"{}","database":"{}","redis":"{}","kafka":"{}","journal":"{}","version":"{}",)"
      R"("fleet":{}{}}})",
      database && journal && redis && kafka ? "ok" : "degraded", word(database), redis_word, kafka_word,
      word(journal), KAVACH_VERSION, fleet, follower);
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
