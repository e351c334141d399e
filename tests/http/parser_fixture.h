// ParserFixture: bodies, and what the batch parser makes of them.
#pragma once

#include "engine/bounds.h"
#include "engine/padded_buffer.h"
#include "http/ingest/batch_parser.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>

namespace kavach::http {

// 2026-06-01T00:00:00Z.
inline constexpr WallMicros kNow = 1'780'272'000 * kMicrosPerSecond;

// The required members of a valid event, with values as JSON texts.
inline constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kRequired = {{
    {"agent_name", R"("a")"},
    {"provider", R"("openai")"},
    {"model", R"("m")"},
    {"input_tokens", "1"},
    {"output_tokens", "2"},
    {"cost", "0.1"},
    {"timestamp", R"("2026-05-25T14:30:00Z")"},
}};

// A valid event, then as it is when `field` has another value. An unknown field is added.
inline std::string event_with(std::string_view field = {}, std::string_view value = {}) {
  std::string out;
  bool found = field.empty();
  for (const auto& [name, valid] : kRequired) {
    fmt::format_to(std::back_inserter(out), R"({}"{}":{})", out.empty() ? "{" : ",", name,
                   name == field ? value : valid);
    found |= name == field;
  }
  if (!found) fmt::format_to(std::back_inserter(out), R"(,"{}":{})", field, value);
  return out + '}';
}

// A body of these events.
inline std::string body_of(std::string_view events) {
  return fmt::format(R"({{"events":[{}]}})", events);
}
inline std::string body_with(std::string_view field = {}, std::string_view value = {}) {
  return body_of(event_with(field, value));
}

// What an event says, free of the memory that it points into.
inline std::string described(const Event& e) {
  return fmt::format("{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}", e.agent_name, e.provider, e.model,
                     e.idempotency_key, e.run_id, e.prompt, e.timestamp, e.input_tokens, e.output_tokens,
                     e.duration_ms, e.cost, e.is_error, e.partial);
}

class ParserFixture {
 public:
  // Of the last body.
  Batch batch;
  Refusal refusal;

  BatchParser parser{ParseLimits{}};

  bool parse(std::string_view body, bool json = true) {
    load(body);
    return parser.parse(body_.view(), json, kNow, batch, arena_, refusal);
  }
  // `behind`: what stands in memory behind the body, as far as it may be read.
  bool direct(std::string_view body, std::string_view behind = {}) {
    load(body);
    std::copy_n(behind.data(), std::min(behind.size(), bounds::kBodyPadding), body_.data() + body.size());
    return parser.direct(body_.view(), kNow, batch, arena_);
  }
  bool fast(std::string_view body) {
    load(body);
    return parser.fast(body_.view(), kNow, batch, arena_);
  }
  bool slow(std::string_view body) {
    load(body);
    return parser.slow(body_.view(), true, kNow, batch, arena_, refusal);
  }

  // The one event of a body that must be taken.
  const Event& taken(std::string_view body) {
    CAPTURE(body);
    const bool is_taken = parse(body);
    REQUIRE_MESSAGE(is_taken, refusal.body);
    REQUIRE(batch.events.size() == 1);
    return batch.events.front();
  }

  // Status and body of the answer to a body that must be refused.
  std::string refused(std::string_view body, bool json = true) {
    if (parse(body, json)) return "taken";
    return fmt::format("{} {}", refusal.status, refusal.body);
  }
  // The errors of a 422, without `{"detail":[` and `]}` around them.
  std::string errors(std::string_view body, bool json = true) {
    std::string answer = refused(body, json);
    constexpr std::string_view kHead = R"(422 {"detail":[)";
    if (!answer.starts_with(kHead)) return answer;
    return answer.substr(kHead.size(), answer.size() - kHead.size() - 2);
  }

 private:
  // An exact fit, so that a sanitizer sees a read beyond the padding.
  void load(std::string_view body) {
    body_ = PaddedBuffer(body.empty() ? 1 : body.size());
    body_.append(body);
    refusal = {};
  }

  PaddedBuffer body_;
  std::string arena_;
};

}  // namespace kavach::http
