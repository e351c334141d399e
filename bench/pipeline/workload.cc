#include "bench/pipeline/workload.h"

#include <fmt/format.h>
#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <stdexcept>
#include <thread>
#include <utility>

namespace kavach::bench {
namespace {

constexpr std::size_t kAgentsPerOrg = 10;
// Between two batches: 10,000 events a second come in.
constexpr WallMicros kBatchEvery = 10 * kMicrosPerMilli;
// An SDK gathers its events for some seconds.
constexpr std::uint64_t kEventAgeMax = 5 * kMicrosPerSecond;

constexpr std::pair<const char*, const char*> kModels[] = {{"gpt-4o", "openai"},
                                                           {"claude-sonnet-4", "anthropic"},
                                                           {"gemini-2.5-pro", "google"},
                                                           {"mistral-large", "mistral"}};

Uuid random_uuid4(Random& random) {
  Uuid id;
  for (std::uint8_t& byte : id.bytes) byte = static_cast<std::uint8_t>(random.next());
  id.bytes[6] = static_cast<std::uint8_t>((id.bytes[6] & 0x0f) | 0x40);
  id.bytes[8] = static_cast<std::uint8_t>((id.bytes[8] & 0x3f) | 0x80);
  return id;
}

}  // namespace

Workload::Workload(const WorkloadOptions& options) : events_(options.events) {
  Random random(1);
  const auto below = [&random](std::uint64_t bound) { return random.next() % bound; };
  struct Org {
    Uuid id, project_id;
  };
  std::vector<Org> orgs(options.orgs);
  const std::size_t batches = options.events / options.batch_events;
  // The last batch comes now: all of it is past, and of the same one or two days.
  const WallMicros start = system_clock().wall() - static_cast<WallMicros>(batches) * kBatchEvery;
  for (Org& org : orgs) org = {make_uuid7(start, random), make_uuid7(start, random)};
  const auto text = [this](std::string value) -> std::string_view {
    return texts_.emplace_back(std::move(value));
  };
  for (std::size_t i = 0; i < batches; ++i) {
    const Org& org = orgs[below(orgs.size())];
    const auto& [model, provider] = kModels[below(std::size(kModels))];
    Batch& batch = batches_.emplace_back();
    batch.received_at = start + static_cast<WallMicros>(i) * kBatchEvery;
    batch.id = make_uuid7(batch.received_at, random);
    batch.org_id = org.id;
    batch.project_id = org.project_id;
    const std::string_view agent = text(fmt::format("agent-{}", below(kAgentsPerOrg)));
    const std::string_view run = text(random_uuid4(random).text());
    for (std::size_t k = 0; k < options.batch_events; ++k) {
      Event& event = batch.events.emplace_back();
      event.agent_name = agent;
      event.provider = provider;
      event.model = model;
      event.idempotency_key = text(random_uuid4(random).text());
      event.run_id = run;
      event.timestamp = batch.received_at - static_cast<WallMicros>(below(kEventAgeMax));
      event.input_tokens = static_cast<std::int64_t>(50 + below(8000));
      event.output_tokens = static_cast<std::int64_t>(10 + below(2000));
      event.duration_ms = static_cast<std::int64_t>(200 + below(9000));
      event.cost = event.input_tokens * 2'500 + event.output_tokens * 10'000;
      event.is_error = below(50) == 0;
    }
  }
}

std::vector<Batch> Workload::single_events() const {
  std::vector<Batch> singles;
  singles.reserve(events_);
  for (const Batch& batch : batches_) {
    for (std::uint32_t i = 0; i < batch.events.size(); ++i) {
      Batch& single = singles.emplace_back();
      single.id = event_id(batch.id, i);
      single.org_id = batch.org_id;
      single.project_id = batch.project_id;
      single.received_at = batch.received_at;
      single.system = batch.system;
      single.events = {batch.events[i]};
    }
  }
  return singles;
}

FilledJournal::FilledJournal(const std::string& directory, const Workload& workload)
    : directory_(directory + "/journal-XXXXXX"), frames_(workload.batches().size()) {
  if (::mkdtemp(directory_.data()) == nullptr) throw std::runtime_error("no folder in " + directory);
  journal_ = sink::Journal::open({.directory = directory_, .in_flight_bytes_max = 1 << 30}).value();
  journal_->start([this](std::uint32_t, std::span<sink::Frame* const> done) {
    for (const sink::Frame* frame : done) failed_ += frame->receipt == sink::Receipt::kJournal ? 0 : 1;
    delivered_ += done.size();
    delivered_.notify_one();
  });
  for (std::size_t i = 0; i < frames_.size(); ++i) {
    sink::encode_batch(workload.batches()[i], {}, frames_[i].payload);
    frames_[i].events = static_cast<std::uint32_t>(workload.batches()[i].events.size());
    frames_[i].seal();
    while (!journal_->submit(0, &frames_[i])) {
      if (!journal_->healthy()) throw std::runtime_error("the journal takes no more");
      journal_->flush(0);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  journal_->flush(0);
  for (std::size_t seen = delivered_; seen < frames_.size(); seen = delivered_) delivered_.wait(seen);
  if (failed_ != 0) throw std::runtime_error("the journal could not be written");
}

FilledJournal::~FilledJournal() {
  journal_->stop();
  journal_.reset();
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

}  // namespace kavach::bench
