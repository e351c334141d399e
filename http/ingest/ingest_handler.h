// Ingest: `POST /v1/ingest` on one shard, from the request to the 202 (design.md, one batch's way).
//
//   handle()     credential, subscription, encoding, parse          401 403 415 400 413 422
//      |  on the home shard of the org: directly, or by one message there and one back
//   verdict      quota/admission.h                                  429
//      |  the admitted events are encoded into a journal frame; body and batch end here
//   receipt      sink/journal/journal.h                             202, or 429 if the journal failed
//      |  the claim is settled on the home shard, whatever the answer still waits for: the batch is durable
//      |  with kafka.receipt = "broker": http/ingest/receipt_queue.h, until Kafka has it or is away
//   answer       Kavach-Receipt says which of both it was
//
// What is under way is an IngestRequest, recycled; batches and buffers are used again as soon as the frame is
// encoded, so that few of them serve many requests and stay in the cache.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/event.h"
#include "engine/metrics.h"
#include "engine/shard.h"
#include "http/auth/directory.h"
#include "http/ingest/agent_index.h"
#include "http/ingest/batch_parser.h"
#include "http/ingest/inflate.h"
#include "http/ingest/receipt_queue.h"
#include "http/transport/handler.h"
#include "quota/admission.h"
#include "sink/journal/journal.h"

namespace kavach::http {

struct IngestMetrics {
  Counter accepted_batches, accepted_events, received_events;
  Counter refused_credential, refused_subscription, refused_encoding, refused_size, refused_body,
      refused_daily, refused_burst, refused_budget, refused_agents, refused_busy, refused_journal,
      refused_broker;
  Counter receipts_journal, receipts_broker;
  Gauge receipts_waiting;      // for Kafka
  DurationHistogram duration;  // of accepted batches: from the complete request to the answer
  void add_to(MetricsRegistry& registry, ShardId shard) const;
};

// One per shard. Own thread of the shard, but for the constructor.
class IngestHandler final : public Handler {
 public:
  struct Options {
    ParseLimits parse;
    std::uint64_t body_bytes_max = 10 << 20;  // after decompression
    bool rate_limit_headers = false;
    std::string_view mode = "direct";  // a constant: "kafka" where events go through it
    ReceiptQueue::Options receipt = {};
  };

  // REQUIRES: all outlive the handler. `hasher` is the same on all shards; `broker` is null without Kafka.
  IngestHandler(Shard& shard, KeyRing& keys, quota::Admission& admission, sink::Journal& journal,
                sink::BrokerProgress* broker, const quota::DedupHasher& hasher, const Options& options);
  ~IngestHandler() override;

  // The handlers of all shards, by shard; before the start.
  void set_peers(std::vector<IngestHandler*> peers) { peers_ = std::move(peers); }
  void set_options(const Options& options);
  // From now on no answer waits longer for Kafka: for a stop. 0: those that wait are answered at once.
  void limit_patience(std::int64_t micros);

  void handle(Exchange& exchange) override;
  std::optional<Response> refuse_early(const Request& request) override;

  // Frames of one shard came back from the journal: the one message that its Deliver sends to that shard.
  static Message receipt_message(std::span<sink::Frame* const> frames);
  // Kafka has acknowledged what this shard waits for.
  Message acknowledged_message();

  const IngestMetrics& metrics() const noexcept { return metrics_; }

 private:
  struct Scratch;
  struct IngestRequest;

  quota::Now now() noexcept { return {.wall = shard_.wall_now(), .mono = shard_.mono_now()}; }
  const ApiKey* authenticate(const Request& request, Response& refusal);
  bool accepts_encoding(const Request& request, bool& gzip, Response& refusal);
  bool refuses_all();
  bool parse(Exchange& exchange, bool gzip, Scratch& scratch, Refusal& refusal);
  void submit(IngestRequest& request);
  void on_verdict(IngestRequest& request);
  void on_receipt(IngestRequest& request);
  void settle(const IngestRequest& request, bool durable);
  void answer_when_received(IngestRequest& request, std::uint64_t seq);
  void answer_waiting();
  void answer_accepted(IngestRequest& request, ReceiptClass receipt);
  void answer_refused(IngestRequest& request);
  void note_rejected_agents(IngestRequest& request);
  Counter& refusal_counter(quota::Reason reason);
  void answer_busy(IngestRequest& request);
  void finish(IngestRequest& request);

  static void decided(quota::AdmissionRequest& request) noexcept;
  IngestRequest* take_request();
  std::unique_ptr<Scratch> take_scratch();
  void give_scratch(std::unique_ptr<Scratch> scratch);

  Shard& shard_;
  KeyRing& keys_;
  quota::Admission& admission_;
  sink::Journal& journal_;
  const quota::DedupHasher& hasher_;
  Options options_;
  std::vector<IngestHandler*> peers_;
  BatchParser parser_;
  Inflater inflater_;
  Random random_;
  std::vector<std::unique_ptr<IngestRequest>> free_requests_;
  std::vector<std::unique_ptr<Scratch>> free_scratches_;
  AgentIndex agent_index_;
  // An answer is rendered here and copied by the exchange.
  std::string body_;
  std::string headers_;
  IngestMetrics metrics_;
  ReceiptQueue receipts_;
};

}  // namespace kavach::http
