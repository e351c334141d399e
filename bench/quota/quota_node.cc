#include "bench/quota/quota_node.h"

#include <memory>

namespace kavach::bench {
namespace {

constexpr WallMicros kStart = 1'780'000'000 * kMicrosPerSecond;
constexpr std::int64_t kStepMicros = 50;
constexpr std::int64_t kPlenty = 1'000'000'000'000;
constexpr std::uint64_t kKeysMax = 40'000'000;  // nothing is forgotten

quota::DedupKey random_key(Random& random) {
  return {random.next(), random.next() & quota::DedupKey::kLowMask};
}

// As good as a random one, in a nanosecond: what is measured is not the making of keys.
void make_fresh(quota::DedupKey& key) {
  key.high = key.high * 6'364'136'223'846'793'005ULL + 1'442'695'040'888'963'407ULL;
}

std::uint64_t agent_of(const Uuid& org, std::uint64_t number) {
  return UuidHash{}(org) ^ ((number + 1) * 0x9e3779b97f4a7c15ULL);
}

}  // namespace

QuotaNode::QuotaNode(const Options& options)
    : options_(options),
      now_{.wall = kStart, .mono = 1},
      admission_({.keys_max = kKeysMax}, ledger_),
      numbers_(options.events),
      requests_(options.under_way) {
  std::vector<quota::Policy> policies;
  for (std::uint32_t i = 0; i < options.orgs; ++i) {
    orgs_.push_back(make_uuid7(kStart, random_));
    policies.push_back({.org = orgs_.back(),
                        .tier = "pro",
                        .events_per_day = kPlenty,
                        .burst_per_minute = kPlenty,
                        .agents_max = 2 * options.agents});
  }
  ledger_.install(std::make_shared<quota::PolicyTable>(std::move(policies)));
  for (std::uint32_t agent = 0; agent < options.agents; ++agent) {
    for (const Uuid& org : orgs_) ledger_.restore_agent(org, agent_of(org, agent), kStart);
  }
  for (quota::AdmissionRequest& request : requests_) {
    request.events = numbers_;
    request.agents.resize(1);
    request.keys.resize(options.events);
    if (options.with_keys)
      for (quota::DedupKey& key : request.keys) key = random_key(random_);
    request.decided = [](quota::AdmissionRequest&) noexcept {};
  }
  fill_burst_windows();
  // Last, so that as much of the table is in the cache however many organizations there are.
  for (std::uint64_t i = 0; i < options.keys; ++i) {
    admission_.dedup().restore(random_key(random_), now_.wall, now_.wall);
  }
}

// With one event without a key of every organization in each second.
void QuotaNode::fill_burst_windows() {
  quota::AdmissionRequest request;
  request.events = std::span(numbers_).first(1);
  request.keys.resize(1);
  request.decided = [](quota::AdmissionRequest&) noexcept {};
  const std::int64_t seconds = options_.full_seconds;
  // Every organization has used something once, whatever the window.
  for (std::int64_t second = 0; second <= seconds; ++second) {
    for (const Uuid& org : orgs_) {
      request.org = org;
      request.agents = {agent_of(org, 0)};
      request.now = now_;
      admission_.decide(request);
      admission_.settle(request.claim, true, now_);
    }
    now_.wall += kMicrosPerSecond;
    now_.mono += kMicrosPerSecond;
  }
}

quota::AdmissionRequest& QuotaNode::next_request() {
  quota::AdmissionRequest& request = requests_[turns_++ % requests_.size()];
  now_.wall += kStepMicros;
  now_.mono += kStepMicros;
  const std::uint64_t number = random_.next();
  request.org = orgs_[(number >> 32) % orgs_.size()];
  request.agents[0] = agent_of(request.org, (number & 0xffffffff) % options_.agents);
  request.now = now_;
  if (options_.with_keys)
    for (quota::DedupKey& key : request.keys) make_fresh(key);
  return request;
}

std::uint64_t QuotaNode::turn() {
  quota::AdmissionRequest& oldest = requests_[turns_ % requests_.size()];
  if (turns_ >= requests_.size()) admission_.settle(oldest.claim, true, now_);
  quota::AdmissionRequest& request = next_request();
  admission_.decide(request);
  return request.verdict == quota::Verdict::kAdmitted ? request.admitted_events : 0;
}

}  // namespace kavach::bench
