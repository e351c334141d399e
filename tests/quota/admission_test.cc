// Admission: what a batch may learn of another one that is under way, in every order of outcomes. Then random
// histories: every verdict against a map of keys, and no batch that waits for ever.
#include "quota/admission.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace kavach::quota {
namespace {

constexpr WallMicros kNow = 1'780'000'000LL * kMicrosPerSecond;

const Uuid kOrg = *Uuid::parse("01900000-0000-7000-8000-00000000000a");

// The same moment on both clocks.
Now at(WallMicros wall) {
  return {.wall = wall, .mono = wall};
}

// An organization without limits.
std::shared_ptr<const PolicyTable> no_limits() {
  return std::make_shared<PolicyTable>(std::vector<Policy>{{.org = kOrg, .tier = "max"}});
}

// A batch of one project, by the names of its keys ("" has none).
struct TestBatch : AdmissionRequest {
  explicit TestBatch(const std::vector<std::string>& names) {
    static const DedupHasher hasher(1);
    now = at(kNow);
    org = kOrg;
    for (const std::string& name : names) keys.push_back(hasher(Uuid{}, name));
    numbers.resize(names.size());
    events = numbers;
    agents = {1};
    decided = [](AdmissionRequest& request) noexcept { ++static_cast<TestBatch&>(request).verdicts; };
  }
  std::string admitted_text() const {
    std::string text;
    for (const std::uint8_t one : admitted) text.push_back(one != 0 ? '1' : '0');
    return text;
  }
  std::vector<Event> numbers;
  int verdicts = 0;
};

struct AdmissionFixture {
  AdmissionFixture() { ledger.install(no_limits()); }
  LocalFleet fleet;
  Ledger ledger{{}, fleet};
  Admission admission{{.window_hours = 168, .keys_max = 1000}, ledger};
};

TEST_CASE_FIXTURE(AdmissionFixture, "events without a key are never duplicates") {
  for (int i = 0; i < 3; ++i) {
    TestBatch batch({"", ""});
    admission.decide(batch);
    CHECK(batch.verdict == Verdict::kAdmitted);
    CHECK(batch.admitted_text() == "11");
    admission.settle(batch.claim, true, at(kNow));
  }
}

TEST_CASE_FIXTURE(AdmissionFixture, "within a batch the first occurrence of a key wins") {
  TestBatch batch({"a", "b", "a", ""});
  admission.decide(batch);
  CHECK(batch.admitted_text() == "1101");
  CHECK(batch.admitted_events == 3);
}

TEST_CASE_FIXTURE(AdmissionFixture, "a batch that was stored is a duplicate from then on") {
  TestBatch first({"a", "b"});
  admission.decide(first);
  admission.settle(first.claim, true, at(kNow));
  TestBatch again({"a", "b"});
  admission.decide(again);
  CHECK(again.verdict == Verdict::kNothingToWrite);
  TestBatch mixed({"b", "c"});
  admission.decide(mixed);
  CHECK(mixed.verdict == Verdict::kAdmitted);
  CHECK(mixed.admitted_text() == "01");
}

TEST_CASE_FIXTURE(AdmissionFixture, "a batch that failed may be sent again") {
  TestBatch first({"a"});
  admission.decide(first);
  admission.settle(first.claim, false, at(kNow));
  TestBatch again({"a"});
  admission.decide(again);
  CHECK(again.verdict == Verdict::kAdmitted);
}

TEST_CASE_FIXTURE(AdmissionFixture, "a concurrent duplicate hears nothing before the first one is durable") {
  TestBatch first({"a"});
  TestBatch second({"x", "a"});
  admission.decide(first);
  admission.decide(second);
  CHECK(second.verdicts == 0);
  admission.settle(first.claim, true, at(kNow));
  CHECK(second.verdicts == 1);
  CHECK(second.admitted_text() == "10");
}

TEST_CASE_FIXTURE(AdmissionFixture, "a waiting batch holds nothing, so another may take its other keys") {
  TestBatch first({"a"});
  TestBatch waiting({"b", "a"});
  TestBatch third({"b"});
  admission.decide(first);
  admission.decide(waiting);
  admission.decide(third);
  CHECK(third.verdict == Verdict::kAdmitted);
  admission.settle(first.claim, true, at(kNow));
  CHECK(waiting.verdicts == 0);  // now it waits for the third
  admission.settle(third.claim, true, at(kNow));
  CHECK(waiting.verdict == Verdict::kNothingToWrite);
}

TEST_CASE_FIXTURE(AdmissionFixture, "when the first one fails, exactly one of 31 that waited takes over") {
  TestBatch first({"a"});
  admission.decide(first);
  std::vector<std::unique_ptr<TestBatch>> others;
  for (int i = 0; i < 31; ++i) {
    others.push_back(std::make_unique<TestBatch>(std::vector<std::string>{"a"}));
    admission.decide(*others.back());
  }
  admission.settle(first.claim, false, at(kNow));
  CHECK(others[0]->verdict == Verdict::kAdmitted);
  for (std::size_t i = 1; i < others.size(); ++i) CHECK(others[i]->verdicts == 0);
  admission.settle(others[0]->claim, true, at(kNow));
  for (std::size_t i = 1; i < others.size(); ++i) CHECK(others[i]->verdict == Verdict::kNothingToWrite);
}

TEST_CASE_FIXTURE(AdmissionFixture,
                  "a batch that waited is a duplicate also when the hour has passed meanwhile") {
  constexpr WallMicros kFullHour = (kNow / kMicrosPerHour + 1) * kMicrosPerHour;
  TestBatch first({"a"});
  TestBatch second({"a"});
  first.now = second.now = at(kFullHour - 1);
  admission.decide(first);
  admission.decide(second);
  admission.settle(first.claim, true, at(kFullHour + 1));
  CHECK(second.verdict == Verdict::kNothingToWrite);
}

TEST_CASE_FIXTURE(AdmissionFixture,
                  "more batches under way than there are claims are refused for the moment") {
  std::vector<std::unique_ptr<TestBatch>> batches;
  for (std::uint32_t i = 0; i < DedupTable::kClaimsMax; ++i) {
    batches.push_back(std::make_unique<TestBatch>(std::vector<std::string>{""}));
    admission.decide(*batches.back());
    REQUIRE(batches.back()->verdict == Verdict::kAdmitted);
  }
  TestBatch one_more({""});
  admission.decide(one_more);
  CHECK(one_more.verdict == Verdict::kRefused);
  CHECK(one_more.refusal.reason == Reason::kBackpressure);
  admission.settle(batches.front()->claim, true, at(kNow));
  TestBatch later({""});
  admission.decide(later);
  CHECK(later.verdict == Verdict::kAdmitted);
}

// Batches come and are settled in random order. The model is a map: of each key, the batch that holds it, or
// when it was remembered.
class History {
 public:
  explicit History(std::uint64_t seed) : random_(seed) { ledger_.install(no_limits()); }

  void step() {
    // Hours pass only while nothing is under way: a batch waits for milliseconds.
    now_ += under_way_.empty() ? below(30) * kMicrosPerHour : below(1000);
    if (below(8) == 0) admission_.on_tick(now_);
    if (below(2) == 0) {
      send();
    } else if (!under_way_.empty()) {
      settle_any();
    }
  }

  // Whatever is still under way is settled, and what follows from that.
  void finish() {
    while (!under_way_.empty()) settle_any();
    for (const auto& batch : batches_) CHECK(batch->verdicts == 1);
  }

 private:
  static constexpr std::int64_t kWindowHours = 24;

  struct Sent : TestBatch {
    Sent(History& of, std::vector<std::string> with) : TestBatch(with), history(of), names(std::move(with)) {
      decided = [](AdmissionRequest& request) noexcept {
        auto& sent = static_cast<Sent&>(request);
        ++sent.verdicts;
        sent.history.check_verdict(sent);
      };
    }
    History& history;
    std::vector<std::string> names;
  };
  struct Key {
    const Sent* holder = nullptr;
    WallMicros seen = 0;
  };

  std::int64_t below(std::uint64_t bound) { return static_cast<std::int64_t>(random_.next() % bound); }

  void send() {
    std::vector<std::string> names(static_cast<std::size_t>(1 + below(4)));
    for (std::string& name : names)
      name = below(10) == 0 ? "" : std::string(1, static_cast<char>('a' + below(12)));
    Sent& batch = *batches_.emplace_back(std::make_unique<Sent>(*this, names));
    // Its shard looked at the clock a moment ago.
    batch.now = at(now_ - below(1000));
    admission_.decide(batch);
    if (batch.verdicts == 0) CHECK(waits_for_another(batch));
  }

  void settle_any() {
    const auto chosen = under_way_.begin() + below(under_way_.size());
    const Sent& batch = **chosen;
    under_way_.erase(chosen);
    const bool durable = below(3) != 0;
    // The model first: others are decided within settle().
    std::erase_if(keys_, [&](const auto& key) { return key.second.holder == &batch && !durable; });
    for (auto& [name, key] : keys_) {
      if (key.holder == &batch) key = {nullptr, now_};
    }
    admission_.settle(batch.claim, durable, at(now_));
  }

  bool waits_for_another(const Sent& batch) const {
    return std::any_of(batch.names.begin(), batch.names.end(), [&](const std::string& name) {
      const auto key = keys_.find(name);
      return key != keys_.end() && key->second.holder != nullptr && key->second.holder != &batch;
    });
  }

  void check_verdict(const Sent& batch) {
    CHECK_FALSE(waits_for_another(batch));
    std::string expected;
    std::set<std::string> own;
    for (const std::string& name : batch.names) {
      const auto key = keys_.find(name);
      const bool remembered =
          key != keys_.end() &&
          batch.now.wall / kMicrosPerHour - key->second.seen / kMicrosPerHour <= kWindowHours;
      const bool is_new = name.empty() || (!remembered && own.insert(name).second);
      expected.push_back(is_new ? '1' : '0');
    }
    CHECK(batch.admitted_text() == expected);
    CHECK(batch.admitted_events == std::count(expected.begin(), expected.end(), '1'));
    CHECK(batch.verdict == (batch.admitted_events > 0 ? Verdict::kAdmitted : Verdict::kNothingToWrite));
    for (const std::string& name : own) keys_[name] = {&batch, 0};
    if (batch.verdict == Verdict::kAdmitted) under_way_.push_back(&batch);
  }

  Random random_;
  WallMicros now_ = kNow;
  LocalFleet fleet_;
  Ledger ledger_{{}, fleet_};
  Admission admission_{{.window_hours = kWindowHours, .keys_max = 1000}, ledger_};
  std::map<std::string, Key> keys_;
  std::vector<std::unique_ptr<Sent>> batches_;
  std::vector<const Sent*> under_way_;
};

TEST_CASE("in random histories every verdict agrees with a map, and every batch gets one") {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    CAPTURE(seed);
    History history(seed);
    for (int i = 0; i < 400; ++i) history.step();
    history.finish();
  }
}

}  // namespace
}  // namespace kavach::quota
