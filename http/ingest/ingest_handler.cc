#include "http/ingest/ingest_handler.h"

#include <algorithm>
#include <utility>

#include "engine/check.h"
#include "http/auth/authenticate.h"
#include "http/ingest/answers.h"
#include "http/ingest/python_json.h"
#include "sink/journal/frame.h"

namespace kavach::http {
namespace {

constexpr std::string_view kBadEncoding = R"({"detail":"Unsupported Content-Encoding: use gzip or none"})";
constexpr std::string_view kBadGzip = R"({"detail":"Invalid gzip body"})";
constexpr std::string_view kTooLarge = R"({"detail":"Request body too large"})";
// Never a 5xx: the real SDK throws a batch away on one, and keeps it on a transient 429 (contract 2.4).
constexpr std::string_view kBusy =
    R"({"detail":"Server cannot take more events now, retry later","reason":"backpressure"})";
constexpr std::string_view kRetryAfter = "Retry-After: 1\r\n";
constexpr std::string_view kReceiptJournal = "Kavach-Receipt: journal\r\n";
constexpr std::string_view kReceiptBroker = "Kavach-Receipt: broker\r\n";
constexpr std::string_view kNoAgents = "[]";

constexpr std::size_t kRequestsKept = 256;
constexpr std::size_t kScratchesKept = 4;
// What is larger is freed after use, so that one big batch does not stay in memory.
constexpr std::size_t kScratchBytesKept = 1 << 20;
constexpr std::size_t kInflatedBytesKept = 1 << 20;
constexpr std::size_t kFrameBytesKept = 256 << 10;
constexpr std::size_t kEventsKept = 1024;

bool equals_ignoring_case(std::string_view a, std::string_view lower) {
  if (a.size() != lower.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const char c = a[i] >= 'A' && a[i] <= 'Z' ? static_cast<char>(a[i] - 'A' + 'a') : a[i];
    if (c != lower[i]) return false;
  }
  return true;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// As FastAPI decides it: application/json or application/*+json; a missing type counts as JSON.
bool is_json(std::string_view content_type) {
  if (content_type.empty() || content_type == "application/json") return true;
  const std::string_view type = trim(content_type.substr(0, content_type.find(';')));
  constexpr std::string_view kPrefix = "application/";
  if (type.size() <= kPrefix.size() || !equals_ignoring_case(type.substr(0, kPrefix.size()), kPrefix))
    return false;
  const std::string_view sub = type.substr(kPrefix.size());
  if (equals_ignoring_case(sub, "json")) return true;
  constexpr std::string_view kSuffix = "+json";
  return sub.size() > kSuffix.size() &&
         equals_ignoring_case(sub.substr(sub.size() - kSuffix.size()), kSuffix);
}

}  // namespace

// A batch and the memory that its views point into.
struct IngestHandler::Scratch {
  Batch batch;
  std::string arena;
  PaddedBuffer inflated;
  PaddedBuffer body;  // taken from the connection when the verdict comes later
};

struct IngestHandler::IngestRequest : quota::AdmissionRequest {
  IngestHandler* handler = nullptr;
  Exchange* exchange = nullptr;
  std::uint32_t home = 0;
  MonoMicros started = 0;
  // Of `agents`, the event that names each.
  std::vector<std::uint32_t> agent_events;
  std::string rejected_agents;       // rendered; empty: none
  bool all_killed = false;           // of rejected_agents
  std::unique_ptr<Scratch> scratch;  // until the frame is encoded
  sink::Frame frame;
};

void IngestMetrics::add_to(MetricsRegistry& registry, ShardId shard) const {
  const MetricsRegistry::Labels labels{{"shard", std::to_string(shard)}};
  registry.add("kavach_ingest_events_received_total", "Events of well-formed batches.", received_events,
               labels);
  registry.add("kavach_ingest_events_accepted_total", "Events answered 202, duplicates included.",
               accepted_events, labels);
  registry.add("kavach_ingest_batches_accepted_total", "Batches answered 202.", accepted_batches, labels);
  const auto refused = [&](const Counter& counter, const char* reason) {
    auto with_reason = labels;
    with_reason["reason"] = reason;
    registry.add("kavach_ingest_batches_refused_total", "Batches refused, by reason.", counter, with_reason);
  };
  refused(refused_credential, "credential");
  refused(refused_subscription, "subscription");
  refused(refused_encoding, "encoding");
  refused(refused_size, "size");
  refused(refused_body, "body");
  refused(refused_daily, "daily_limit");
  refused(refused_burst, "burst");
  refused(refused_budget, "org_budget_exceeded");
  refused(refused_agents, "tier_agent_limit");
  refused(refused_busy, "backpressure");
  refused(refused_journal, "journal");
  refused(refused_broker, "broker");
  const auto receipts = [&](const Counter& counter, const char* receipt) {
    auto with_class = labels;
    with_class["class"] = receipt;
    registry.add("kavach_ingest_receipts_total", "Batches answered 202, by Kavach-Receipt.", counter,
                 with_class);
  };
  receipts(receipts_journal, "journal");
  receipts(receipts_broker, "broker");
  registry.add("kavach_ingest_receipts_waiting", "Batches durable in the journal whose 202 waits for Kafka.",
               receipts_waiting, labels);
  registry.add("kavach_ingest_duration_seconds", "From the complete request to its 202.", duration, labels);
}

IngestHandler::IngestHandler(Shard& shard, KeyRing& keys, quota::Admission& admission, sink::Journal& journal,
                             sink::BrokerProgress* broker, const quota::DedupHasher& hasher,
                             const Options& options)
    : shard_(shard),
      keys_(keys),
      admission_(admission),
      journal_(journal),
      hasher_(hasher),
      options_(options),
      parser_(options.parse),
      receipts_(shard.id(), broker, metrics_.receipts_waiting) {
  receipts_.set_options(options.receipt);
  // One wake-up of the journal's thread for all batches of a turn.
  shard_.at_end_of_turn([this] { journal_.flush(shard_.id()); });
  if (broker != nullptr) shard_.at_tick([this] { answer_waiting(); });
}

IngestHandler::~IngestHandler() {
  // The shards have stopped, and the connections are gone.
  while (const auto waiting = receipts_.give_up())
    delete static_cast<IngestRequest*>(waiting->request);  // owned here from take_request() to finish()
}

void IngestHandler::set_options(const Options& options) {
  options_ = options;
  parser_.set_limits(options.parse);
  receipts_.set_options(options.receipt);
}

void IngestHandler::limit_patience(std::int64_t micros) {
  ReceiptQueue::Options limited = receipts_.options();
  limited.patience_us = std::min(limited.patience_us, micros);
  receipts_.set_options(limited);
  answer_waiting();
}

// --- the request -------------------------------------------------------------------------------------------

const ApiKey* IngestHandler::authenticate(const Request& request, Response& refusal) {
  const ApiKey* const key = http::authenticate(keys_, request, shard_.wall_now(), refusal);
  if (key == nullptr)
    (refusal.status == 403 ? metrics_.refused_subscription : metrics_.refused_credential).add();
  return key;
}

bool IngestHandler::accepts_encoding(const Request& request, bool& gzip, Response& refusal) {
  const std::string_view encoding = trim(request.content_encoding);
  gzip = encoding == "gzip" || equals_ignoring_case(encoding, "gzip") ||
         equals_ignoring_case(encoding, "x-gzip");
  if (gzip || encoding.empty() || equals_ignoring_case(encoding, "identity")) return true;
  metrics_.refused_encoding.add();
  refusal = {.status = 415, .body = kBadEncoding, .headers = "Accept-Encoding: gzip\r\n"};
  return false;
}

std::optional<Response> IngestHandler::refuse_early(const Request& request) {
  Response refusal;
  bool gzip = false;
  if (authenticate(request, refusal) == nullptr || !accepts_encoding(request, gzip, refusal)) return refusal;
  if (!refuses_all()) return std::nullopt;
  return Response{.status = 429, .body = kBusy, .headers = kRetryAfter};
}

// Nothing can be taken now, whoever sends it. Counts the refusal.
bool IngestHandler::refuses_all() {
  const bool saturated = journal_.saturated();
  if (!saturated && !receipts_.refuses(shard_.mono_now())) return false;
  (saturated ? metrics_.refused_busy : metrics_.refused_broker).add();
  return true;
}

void IngestHandler::handle(Exchange& exchange) {
  shard_.note_activity("ingest");
  Response response;
  bool gzip = false;
  const ApiKey* key = authenticate(exchange.request(), response);
  if (key == nullptr || !accepts_encoding(exchange.request(), gzip, response))
    return exchange.answer(response);
  // Before the parse: refusing must stay cheap when there is too much to do.
  if (refuses_all()) return exchange.answer({.status = 429, .body = kBusy, .headers = kRetryAfter});

  auto scratch = take_scratch();
  Refusal refusal;
  if (!parse(exchange, gzip, *scratch, refusal)) {
    give_scratch(std::move(scratch));
    return exchange.answer({.status = refusal.status, .body = refusal.body});
  }
  Batch& batch = scratch->batch;
  const Org& org = keys_.table().org_of(*key);
  batch.id = make_uuid7(batch.received_at, random_);
  batch.org_id = org.id;
  batch.project_id = key->project_id;
  batch.system = IngestSystem::kAgentKavach;
  metrics_.received_events.add(batch.events.size());

  IngestRequest& request = *take_request();
  request.exchange = &exchange;
  request.home = org.home;
  exchange.prefer_shard(org.home);
  request.org = org.id;
  request.now = now();
  request.started = request.now.mono;
  request.keys.clear();
  for (const Event& event : batch.events)
    request.keys.push_back(hasher_(batch.project_id, event.idempotency_key));
  request.events = batch.events;
  agent_index_.list(batch, request.agents, request.agent_events, request.agent_of);
  request.wants_rate = options_.rate_limit_headers;
  request.scratch = std::move(scratch);
  submit(request);
}

bool IngestHandler::parse(Exchange& exchange, bool gzip, Scratch& scratch, Refusal& refusal) {
  const bool json = is_json(exchange.request().content_type);
  std::string_view body = exchange.request().body;
  if (gzip) {
    InflateError error{};
    if (!inflater_.inflate(body, options_.body_bytes_max, scratch.inflated, error)) {
      const bool corrupt = error == InflateError::kCorrupt;
      (corrupt ? metrics_.refused_encoding : metrics_.refused_size).add();
      refusal = {corrupt ? 400 : 413, std::string(corrupt ? kBadGzip : kTooLarge)};
      return false;
    }
    body = scratch.inflated.view();
    exchange.release_body();
  }
  scratch.batch.received_at = shard_.wall_now();
  if (parser_.parse(body, json, scratch.batch.received_at, scratch.batch, scratch.arena, refusal))
    return true;
  metrics_.refused_body.add();
  return false;
}

// --- the verdict -------------------------------------------------------------------------------------------

void IngestHandler::submit(IngestRequest& request) {
  // The verdict may come later, so the batch takes along what its views point into.
  if (request.scratch->inflated.size() == 0) request.scratch->body = request.exchange->take_body();
  if (request.home == shard_.id()) return admission_.decide(request);
  // The request is lent to the home shard until its verdict comes back.
  const auto decide_there = [](void* home, std::uint64_t lent, std::uint64_t) noexcept {
    static_cast<IngestHandler*>(home)->admission_.decide(*reinterpret_cast<IngestRequest*>(lent));
  };
  shard_.outbox().send(request.home,
                       {decide_there, peers_[request.home], reinterpret_cast<std::uint64_t>(&request), 0});
}

// On the home shard.
void IngestHandler::decided(quota::AdmissionRequest& request) noexcept {
  auto& ours = static_cast<IngestRequest&>(request);
  Shard* const here = Shard::current();
  if (here == &ours.handler->shard_) return ours.handler->on_verdict(ours);
  const auto back = [](void* target, std::uint64_t, std::uint64_t) noexcept {
    auto& returned = *static_cast<IngestRequest*>(target);
    returned.handler->on_verdict(returned);
  };
  here->outbox().send(ours.handler->shard_.id(), {back, &ours, 0, 0});
}

void IngestHandler::on_verdict(IngestRequest& request) {
  const bool admitted = request.verdict == quota::Verdict::kAdmitted;
  Batch& batch = request.scratch->batch;
  if (admitted) {
    // It counts in the periods in which it was admitted, also after a restart.
    batch.received_at = request.accepted_at;
    const bool all = request.admitted_events == request.events.size();
    request.frame.payload.clear();
    sink::encode_batch(
        batch, all ? std::span<const std::uint8_t>{} : std::span<const std::uint8_t>(request.admitted),
        request.frame.payload);
    request.frame.events = request.admitted_events;
    request.frame.seal();
  }
  if (request.rejected_events > 0) note_rejected_agents(request);
  if (request.scratch->body.capacity() > 0) request.exchange->give_back(std::move(request.scratch->body));
  give_scratch(std::move(request.scratch));

  switch (request.verdict) {
    case quota::Verdict::kAdmitted:
      if (journal_.submit(shard_.id(), &request.frame)) return;
      settle(request, false);
      metrics_.refused_busy.add();
      return answer_busy(request);
    case quota::Verdict::kNothingToWrite:
      // Its events are duplicates of some that are durable, wherever these are in the journal.
      return answer_when_received(request, journal_.durable_seq());
    case quota::Verdict::kRefused:
      return answer_refused(request);
  }
}

// While the names are still there.
void IngestHandler::note_rejected_agents(IngestRequest& request) {
  std::vector<std::string_view> names;
  request.all_killed = true;
  for (std::size_t i = 0; i < request.agents.size(); ++i) {
    if (request.agent_answers[i] == quota::AgentAnswer::kAdmitted) continue;
    request.all_killed = request.all_killed && request.agent_answers[i] == quota::AgentAnswer::kKilled;
    names.push_back(request.events[request.agent_events[i]].agent_name);
    if (request.agent_answers[i] != quota::AgentAnswer::kKilled)
      keys_.note_rejected(request.scratch->batch.org_id, names.back(), shard_.wall_now());
  }
  std::sort(names.begin(), names.end());
  std::string& out = request.rejected_agents;
  out = "[";
  for (const std::string_view name : names) {
    if (out.size() > 1) out += ',';
    render_json_string(name, out);
  }
  out += ']';
}

// --- the receipt -------------------------------------------------------------------------------------------

Message IngestHandler::receipt_message(std::span<sink::Frame* const> frames) {
  for (std::size_t i = 0; i < frames.size(); ++i) {
    frames[i]->next = i + 1 < frames.size() ? frames[i + 1] : nullptr;
  }
  const auto run = [](void* target, std::uint64_t, std::uint64_t) noexcept {
    for (auto* frame = static_cast<sink::Frame*>(target); frame != nullptr;) {
      sink::Frame* const next = frame->next;  // the frame is used again once its request is answered
      auto& request = *static_cast<IngestRequest*>(frame->owner);
      request.handler->on_receipt(request);
      frame = next;
    }
  };
  return {run, frames.front(), 0, 0};
}

void IngestHandler::on_receipt(IngestRequest& request) {
  shard_.note_activity("receipt");
  const bool durable = request.frame.receipt == sink::Receipt::kJournal;
  settle(request, durable);
  if (durable) return answer_when_received(request, request.frame.seq);
  metrics_.refused_journal.add();
  answer_busy(request);
}

// Now, or when Kafka has everything up to `seq`.
void IngestHandler::answer_when_received(IngestRequest& request, std::uint64_t seq) {
  if (const auto receipt = receipts_.ask(seq, &request, shard_.mono_now()))
    return answer_accepted(request, *receipt);
  // A large one may wait for seconds beside many others.
  if (request.frame.payload.capacity() > kFrameBytesKept) request.frame.payload = {};
}

Message IngestHandler::acknowledged_message() {
  const auto run = [](void* target, std::uint64_t, std::uint64_t) noexcept {
    auto& handler = *static_cast<IngestHandler*>(target);
    handler.shard_.note_activity("broker receipts");
    handler.answer_waiting();
  };
  return {run, this, 0, 0};
}

void IngestHandler::answer_waiting() {
  while (const auto answer = receipts_.next(shard_.mono_now()))
    answer_accepted(*static_cast<IngestRequest*>(answer->request), answer->receipt);
}

void IngestHandler::settle(const IngestRequest& request, bool durable) {
  if (request.home == shard_.id()) return admission_.settle(request.claim, durable, now());
  const auto settle_there = [](void* home, std::uint64_t claim, std::uint64_t durable_there) noexcept {
    auto& there = *static_cast<IngestHandler*>(home);
    there.admission_.settle(static_cast<std::uint32_t>(claim), durable_there != 0, there.now());
  };
  shard_.outbox().send(request.home,
                       {settle_there, peers_[request.home], request.claim, durable ? std::uint64_t{1} : 0});
}

void IngestHandler::answer_accepted(IngestRequest& request, ReceiptClass receipt) {
  const auto events = static_cast<std::uint32_t>(request.events.size());
  const std::uint32_t accepted = events - request.rejected_events;
  metrics_.accepted_batches.add();
  metrics_.accepted_events.add(accepted);
  const bool is_broker = receipt == ReceiptClass::kBroker;
  (is_broker ? metrics_.receipts_broker : metrics_.receipts_journal).add();
  metrics_.duration.record(shard_.mono_now() - request.started);
  body_.clear();
  render_accepted(accepted, request.rejected_events, options_.mode,
                  request.rejected_agents.empty() ? kNoAgents : request.rejected_agents, body_);
  headers_ = is_broker ? kReceiptBroker : kReceiptJournal;
  if (request.wants_rate) render_rate_limits(request.rate, headers_);
  Exchange& exchange = *request.exchange;
  finish(request);
  exchange.answer({.status = 202, .body = body_, .headers = headers_});
}

void IngestHandler::answer_refused(IngestRequest& request) {
  refusal_counter(request.refusal.reason).add();
  body_.clear();
  render_refusal(request.refusal, request.rejected_agents.empty() ? kNoAgents : request.rejected_agents,
                 request.all_killed, body_);
  headers_.clear();
  render_retry_after(request.refusal.retry_after_s, headers_);
  if (request.wants_rate) render_rate_limits(request.rate, headers_);
  Exchange& exchange = *request.exchange;
  finish(request);
  exchange.answer({.status = 429, .body = body_, .headers = headers_});
}

Counter& IngestHandler::refusal_counter(quota::Reason reason) {
  switch (reason) {
    case quota::Reason::kDailyLimit:
      return metrics_.refused_daily;
    case quota::Reason::kBurst:
      return metrics_.refused_burst;
    case quota::Reason::kOrgBudget:
      return metrics_.refused_budget;
    case quota::Reason::kAgentLimit:
      return metrics_.refused_agents;
    case quota::Reason::kNone:
    case quota::Reason::kBackpressure:
      break;
  }
  return metrics_.refused_busy;
}

void IngestHandler::answer_busy(IngestRequest& request) {
  Exchange& exchange = *request.exchange;
  finish(request);
  exchange.answer({.status = 429, .body = kBusy, .headers = kRetryAfter});
}

// --- recycling ---------------------------------------------------------------------------------------------

IngestHandler::IngestRequest* IngestHandler::take_request() {
  std::unique_ptr<IngestRequest> request;
  if (free_requests_.empty()) {
    request = std::make_unique<IngestRequest>();
    request->handler = this;
    request->decided = &IngestHandler::decided;
    request->frame.owner = request.get();
  } else {
    request = std::move(free_requests_.back());
    free_requests_.pop_back();
  }
  return request.release();  // finish() takes it back
}

void IngestHandler::finish(IngestRequest& request) {
  std::unique_ptr<IngestRequest> owned(&request);
  owned->exchange = nullptr;
  owned->rejected_agents.clear();
  owned->all_killed = false;
  if (free_requests_.size() >= kRequestsKept || owned->frame.payload.capacity() > kFrameBytesKept ||
      owned->keys.capacity() > kEventsKept) {
    return;
  }
  free_requests_.push_back(std::move(owned));
}

std::unique_ptr<IngestHandler::Scratch> IngestHandler::take_scratch() {
  if (free_scratches_.empty()) return std::make_unique<Scratch>();
  auto scratch = std::move(free_scratches_.back());
  free_scratches_.pop_back();
  scratch->inflated.clear();
  return scratch;
}

void IngestHandler::give_scratch(std::unique_ptr<Scratch> scratch) {
  const bool large = scratch->arena.capacity() > kScratchBytesKept ||
                     scratch->inflated.capacity() > kInflatedBytesKept ||
                     scratch->batch.events.capacity() > kEventsKept;
  if (large || free_scratches_.size() >= kScratchesKept) return;
  free_scratches_.push_back(std::move(scratch));
}

}  // namespace kavach::http
