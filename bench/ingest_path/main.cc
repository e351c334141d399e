// kavach-ingest-path: a fixed number of batches through POST /v1/ingest, for whoever counts the instructions
// (tests/bench/test_instructions.py).
//
// It is the path of kavachd, from the request's bytes to the answer's, without socket and disk: HTTP header,
// key, inflating, parse, limits, deduplication, the journal's record, and, with the receipt, settlement and
// answer. Only what measured_request() and measured_receipt() call on the shard's thread counts. Nothing in
// there depends on the machine, the time or chance: seeds, keys and clock are fixed, and there is one batch
// at a time, so that every run has as many instructions as the one before.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdint>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/support/sample.h"
#include "engine/check.h"
#include "engine/shard.h"
#include "http/auth/api_key.h"
#include "http/ingest/ingest_handler.h"
#include "http/transport/render.h"
#include "http/transport/request_parser.h"

namespace kavach::bench {
namespace {

constexpr std::string_view kDate = "Mon, 25 May 2026 14:30:00 GMT";
constexpr std::uint32_t kHeaderBytesMax = 16 << 10;
constexpr std::uint64_t kBodyBytesMax = 10 << 20;
constexpr std::int64_t kPlenty = 1'000'000'000'000;
// Batches before the first that counts: buffers have grown, the key table and the agent are known.
constexpr std::uint32_t kWarmUpBatches = 8;

class StoppedClock final : public Clock {
 public:
  WallMicros wall() const noexcept override { return kSampleNow; }
  MonoMicros mono() const noexcept override { return kMicrosPerSecond; }
};

// A connection as far as a handler sees it.
class OneRequest final : public http::Exchange {
 public:
  // The request's bytes, header and body.
  // `answer`: where its answer goes; memory that one request after the other uses, as a shard has it.
  OneRequest(PaddedBuffer bytes, std::string& answer) : bytes_(std::move(bytes)), answer_(answer) {
    answer_.clear();
  }

  void handle(http::Handler& handler) {
    PaddedBuffer chunked;
    http::RequestParser parser(request_, chunked, kHeaderBytesMax, kBodyBytesMax);
    http::RequestParser::Error error;
    const std::size_t header = parser.parse_header(bytes_.view(), error);
    KAVACH_CHECK(header > 0 && !error, "the request is well-formed");
    request_.body = bytes_.view().substr(header);
    handler.handle(*this);
  }
  bool is_answered() const { return !answer_.empty(); }

  void release_body() override {}
  PaddedBuffer take_body() override { return std::move(bytes_); }
  void give_back(PaddedBuffer buffer) override { bytes_ = std::move(buffer); }
  void answer(const http::Response& response) override {
    http::render_response(response, {}, kDate, answer_);
  }

 private:
  PaddedBuffer bytes_;
  std::string& answer_;
};

// Names without mangling: callgrind is told to count between their entry and their exit.
extern "C" {
[[gnu::noinline]] void measured_request(OneRequest* request, http::Handler* handler) {
  request->handle(*handler);
  asm volatile("");  // what is measured must not end with a jump out of it
}
[[gnu::noinline]] void measured_receipt(const Message* message) {
  message->run(message->target, message->a, message->b);
  asm volatile("");
}
}

// kavachd's parts behind its socket: one shard, no limit reached, a journal.
class IngestNode {
 public:
  explicit IngestNode(const std::string& directory) {
    Random random(1);
    const Uuid org = make_uuid7(kSampleNow, random);
    sink::Directory known;
    known.orgs.push_back({org, org, "bench", "pro", "active", false});
    known.keys.push_back({make_uuid7(kSampleNow, random), org, org, http::digest_of(kKey), true});
    keys_.install(std::make_unique<http::KeyTable>(known, 1));
    std::vector<quota::Policy> policies{{.org = org,
                                         .tier = "pro",
                                         .events_per_day = kPlenty,
                                         .burst_per_minute = kPlenty,
                                         .agents_max = 5000}};
    ledger_.install(std::make_shared<quota::PolicyTable>(std::move(policies)));
    auto journal = sink::Journal::open({.directory = directory});
    KAVACH_CHECK(journal.has_value(), "the journal must open");
    journal_ = std::move(*journal);
    ingest_ = std::make_unique<http::IngestHandler>(runtime_.shard(0), keys_, admission_, *journal_, nullptr,
                                                    hasher_, http::IngestHandler::Options{});
    ingest_->set_peers({ingest_.get()});
    journal_->start([this](std::uint32_t, std::span<sink::Frame* const> frames) {
      receipt_ = http::IngestHandler::receipt_message(frames);
      const auto run = [](void* node, std::uint64_t, std::uint64_t) noexcept {
        static_cast<IngestNode*>(node)->take_receipt();
      };
      Outbox& outbox = runtime_.outside_outbox(0);
      outbox.send(0, {run, this, 0, 0});
      while (!outbox.flush()) {
      }
    });
    runtime_.start();
  }
  ~IngestNode() {
    journal_->stop();
    runtime_.stop();
  }
  IngestNode(const IngestNode&) = delete;
  IngestNode& operator=(const IngestNode&) = delete;

  static constexpr std::string_view kKey =
      "ak_prod_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

  // One batch, until it is answered.
  void serve(OneRequest& request, bool counts) {
    answered_ = false;
    runtime_.shard(0).post([&] {
      // The clock is looked at once per turn, and turns are not all alike.
      runtime_.shard(0).wall_now();
      request_ = &request;
      counts_ = counts;
      if (counts) {
        measured_request(&request, ingest_.get());
      } else {
        request.handle(*ingest_);
      }
      tell_answered();
    });
    answered_.wait(false);
  }

 private:
  void take_receipt() {
    runtime_.shard(0).wall_now();
    if (counts_) {
      measured_receipt(&receipt_);
    } else {
      receipt_.run(receipt_.target, receipt_.a, receipt_.b);
    }
    tell_answered();
  }
  // Outside of what is measured: what it costs depends on who waits.
  void tell_answered() {
    if (!request_->is_answered()) return;
    answered_ = true;
    answered_.notify_one();
  }

  StoppedClock clock_;
  Runtime runtime_{{.shards = 1, .outside_senders = 1, .clock = &clock_}};
  http::KeyRing keys_;
  quota::LocalFleet fleet_;
  quota::Ledger ledger_{{}, fleet_};
  quota::Admission admission_{{}, ledger_};
  quota::DedupHasher hasher_{1};
  std::unique_ptr<sink::Journal> journal_;
  std::unique_ptr<http::IngestHandler> ingest_;
  // Of the one batch under way.
  OneRequest* request_ = nullptr;
  bool counts_ = false;
  Message receipt_{};
  std::atomic<bool> answered_{false};
};

struct PathOptions {
  std::uint32_t events = 100;
  std::uint32_t batches = 32;
  bool gzip = false;
  bool escapes = false;
  std::string directory;
};

PaddedBuffer make_request(const PathOptions& options, std::uint64_t seed) {
  std::string body = make_sample(options.events, seed).text;
  if (options.escapes) body.replace(body.find("agent-"), 1, R"(\u0061)");
  if (options.gzip) body = gzip(body);
  return padded(
      fmt::format("POST /v1/ingest HTTP/1.1\r\nHost: kavach.example.com\r\nAccept-Encoding: identity\r\n"
                  "User-Agent: agentkavach-python\r\nAuthorization: Bearer {}\r\n"
                  "Content-Type: application/json\r\n{}Content-Length: {}\r\n\r\n{}",
                  IngestNode::kKey, options.gzip ? "Content-Encoding: gzip\r\n" : "", body.size(), body));
}

int run(int argc, char** argv) {
  CLI::App app{
      "kavach-ingest-path: a fixed number of batches through POST /v1/ingest, to count instructions"};
  PathOptions options;
  app.add_option("--events", options.events, "Of a batch")->capture_default_str();
  app.add_option("--batches", options.batches, "That count")->capture_default_str();
  app.add_flag("--gzip", options.gzip, "Compress the bodies");
  app.add_flag("--escapes", options.escapes, "With an escape in the first event's agent");
  app.add_option("--directory", options.directory, "Of the journal: an empty one")->required();
  CLI11_PARSE(app, argc, argv);

  std::string answer;
  IngestNode node(options.directory);
  const std::string expected = fmt::format(R"({{"accepted":{},"rejected":0,)", options.events);
  for (std::uint32_t i = 0; i < kWarmUpBatches + options.batches; ++i) {
    OneRequest request(make_request(options, i), answer);
    node.serve(request, i >= kWarmUpBatches);
    if (answer.starts_with("HTTP/1.1 202") && answer.find(expected) != std::string::npos) continue;
    std::cerr << "kavach-ingest-path: batch " << i << ": " << answer << '\n';
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace kavach::bench

int main(int argc, char** argv) {
  return kavach::bench::run(argc, argv);
}
