// BatchParser: whatever the body, the answer is a batch within the contract's bounds or a refusal that is
// JSON; the direct pass takes only what the fast one takes, that one only what the slow one takes, and each
// makes the same of it.
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "engine/bounds.h"
#include "engine/check.h"
#include "engine/padded_buffer.h"
#include "http/ingest/batch_parser.h"
#include "http/ingest/error_list.h"
#include "http/ingest/pydantic_lax.h"
#include "http/ingest/python_json.h"
#include "http/ingest/utf8.h"
#include "sink/journal/frame.h"

namespace kavach::http {
namespace {

constexpr WallMicros kNow = 1'790'000'000 * kMicrosPerSecond;
// Few, so that a small input can be too large a batch.
constexpr ParseLimits kLimits{.batch_events_max = 8};

bool lies_within(std::string_view view, std::string_view bytes) {
  return view.data() >= bytes.data() && view.data() + view.size() <= bytes.data() + bytes.size();
}

void check_text(std::string_view text, std::size_t chars_min, std::size_t chars_max, std::string_view body,
                std::string_view arena) {
  KAVACH_CHECK(text.empty() || lies_within(text, body) || lies_within(text, arena), "a view into nothing");
  KAVACH_CHECK(is_utf8(text, Surrogates::kRefuse), "text that is no UTF-8");
  const std::size_t chars = count_chars(text);
  KAVACH_CHECK(chars >= chars_min && chars <= chars_max, "a text of a length that the contract refuses");
}

void check_batch(const Batch& batch, std::string_view body, const std::string& arena) {
  KAVACH_CHECK(!batch.events.empty() && batch.events.size() <= kLimits.batch_events_max, "number of events");
  for (const Event& event : batch.events) {
    check_text(event.agent_name, 1, bounds::kNameCharsMax, body, arena);
    check_text(event.provider, 1, bounds::kProviderCharsMax, body, arena);
    check_text(event.model, 1, bounds::kNameCharsMax, body, arena);
    check_text(event.idempotency_key, 0, bounds::kNameCharsMax, body, arena);
    check_text(event.run_id, 0, bounds::kNameCharsMax, body, arena);
    check_text(event.prompt, 0, bounds::kPromptCharsMax, body, arena);
    KAVACH_CHECK(event.timestamp <= kNow, "a time in the future");
    KAVACH_CHECK(event.input_tokens >= 0 && event.output_tokens >= 0 && event.duration_ms >= 0, "negative");
    KAVACH_CHECK(event.cost >= 0 && static_cast<double>(event.cost) <= kCostDollarsMax * kNanoPerDollar,
                 "a cost out of bounds");
  }
}

// What was admitted must come back from the journal as it was.
void check_journaled(Batch& batch) {
  batch.received_at = kNow;
  std::vector<std::uint8_t> payload;
  sink::encode_batch(batch, {}, payload);
  Batch decoded;
  std::string arena;
  KAVACH_CHECK(sink::decode_batch(payload, decoded, arena).has_value(), "the journal refuses what it wrote");
  KAVACH_CHECK(batch.events == decoded.events, "the journal gives another batch back");
}

void check_refusal(const Refusal& refusal, std::string_view body) {
  KAVACH_CHECK(refusal.status == 422 || refusal.status == 400, "the status of a refusal");
  // An echo shows a byte as six characters at most (\u0000); past its bound the list is closed.
  constexpr std::size_t kOneErrorBytes = 1024;
  KAVACH_CHECK(refusal.body.size() <= ErrorList::kListBytesMax + 6 * body.size() + kOneErrorBytes,
               "an answer without bound");
  KAVACH_CHECK(is_utf8(refusal.body, Surrogates::kRefuse), "an answer that is no UTF-8");
  const auto fault = check_json(refusal.body);
  // An echo of what nests as deep as we follow is deeper by the levels around it.
  KAVACH_CHECK(!fault || fault->message == nullptr, "an answer that is no JSON");
  if (fault) return;
  JsonWalk answer(refusal.body);
  std::string_view key;
  std::string_view detail;
  KAVACH_CHECK(answer.next_member(key, detail) && key == "\"detail\"", "an answer without a detail");
  if (refusal.status == 400) return;
  JsonWalk problems(detail);
  std::string_view problem;
  int count = 0;
  for (; problems.next_item(problem); ++count) {
    JsonWalk members(problem);
    std::string_view value;
    for (const std::string_view name : {"\"type\"", "\"loc\"", "\"msg\"", "\"input\""}) {
      KAVACH_CHECK(members.next_member(key, value) && key == name, "a problem without one of its members");
    }
  }
  KAVACH_CHECK(count > 0, "a refusal without a reason");
}

// Takes the body with other bytes behind it each time: they must not matter.
using Pass = bool (BatchParser::*)(std::string_view, WallMicros, Batch&, std::string&);
bool run(Pass pass, BatchParser& parser, std::string_view bytes, char behind, PaddedBuffer& body,
         Batch& batch, std::string& arena) {
  body.reserve(bytes.size() + 1);  // an empty buffer has no padding
  body.append(bytes);
  std::memset(body.data() + body.size(), behind, bounds::kBodyPadding);
  return (parser.*pass)(body.view(), kNow, batch, arena);
}

void check(std::string_view bytes) {
  // As on a shard: one parser for all bodies, so that one must leave nothing behind for the next.
  static BatchParser parser(kLimits);
  PaddedBuffer body;
  Batch fast;
  std::string fast_arena;
  const bool is_fast = run(&BatchParser::fast, parser, bytes, '"', body, fast, fast_arena);
  if (is_fast) check_batch(fast, body.view(), fast_arena);
  for (const char behind : {'\0', '}', '7'}) {
    PaddedBuffer other_body;
    Batch other;
    std::string other_arena;
    KAVACH_CHECK(run(&BatchParser::fast, parser, bytes, behind, other_body, other, other_arena) == is_fast,
                 "what stands behind a body decided");
    if (is_fast) KAVACH_CHECK(fast.events == other.events, "what stands behind a body came into the batch");
  }
  // Its guesses are those that other bodies left, and from the second time on this body's own.
  bool is_direct = false;
  for (const char behind : {'"', '\0', '}', '7', ' '}) {
    PaddedBuffer direct_body;
    Batch direct;
    std::string direct_arena;
    const bool taken = run(&BatchParser::direct, parser, bytes, behind, direct_body, direct, direct_arena);
    KAVACH_CHECK(behind == '"' || taken == is_direct, "a guess, or what stands behind a body, decided");
    is_direct = taken;
    if (!taken) continue;
    check_batch(direct, direct_body.view(), direct_arena);
    KAVACH_CHECK(is_fast && direct.events == fast.events, "direct and fast pass differ");
  }

  Batch slow;
  std::string slow_arena;
  Refusal refusal;
  // Without the padding, which the slow pass does not need: the sanitizer sees every byte too far.
  const std::vector<char> exact(bytes.begin(), bytes.end());
  const std::string_view exact_body(exact.data(), exact.size());
  if (parser.slow(exact_body, true, kNow, slow, slow_arena, refusal)) {
    check_batch(slow, exact_body, slow_arena);
    if (is_fast) KAVACH_CHECK(fast.events == slow.events, "fast and slow pass differ");
    check_journaled(slow);
  } else {
    KAVACH_CHECK(!is_fast, "the fast pass takes what the slow one refuses");
    check_refusal(refusal, bytes);
  }

  // The same bytes as text/plain are no batch.
  KAVACH_CHECK(!parser.slow(exact_body, false, kNow, slow, slow_arena, refusal), "no JSON, and yet taken");
  check_refusal(refusal, bytes);
}

}  // namespace
}  // namespace kavach::http

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  kavach::http::check({reinterpret_cast<const char*>(bytes), size});
  return 0;
}
