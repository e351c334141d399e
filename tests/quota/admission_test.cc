// Admission: what a batch may learn of another one that is under way, in every order of outcomes.
#include "quota/admission.h"

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

namespace kavach::quota {
namespace {

constexpr WallMicros kNow = 1'780'000'000LL * kMicrosPerSecond;

const Uuid kOrg = *Uuid::parse("01900000-0000-7000-8000-00000000000a");

// A batch of one project, by the names of its keys ("" has none).
struct TestBatch : AdmissionRequest {
  explicit TestBatch(const std::vector<std::string>& names) {
    static const DedupHasher hasher(1);
    now = {.wall = kNow, .mono = kNow};
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
  AdmissionFixture() { ledger.install(std::make_shared<PolicyTable>(std::vector<Policy>{{.org = kOrg, .tier = "max"}})); }
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
    admission.settle(batch.claim, true, Now{.wall = kNow, .mono = kNow});
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
  admission.settle(first.claim, true, Now{.wall = kNow, .mono = kNow});
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
  admission.settle(first.claim, false, Now{.wall = kNow, .mono = kNow});
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
  admission.settle(first.claim, true, Now{.wall = kNow, .mono = kNow});
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
  admission.settle(first.claim, true, Now{.wall = kNow, .mono = kNow});
  CHECK(waiting.verdicts == 0);  // now it waits for the third
  admission.settle(third.claim, true, Now{.wall = kNow, .mono = kNow});
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
  admission.settle(first.claim, false, Now{.wall = kNow, .mono = kNow});
  CHECK(others[0]->verdict == Verdict::kAdmitted);
  for (std::size_t i = 1; i < others.size(); ++i) CHECK(others[i]->verdicts == 0);
  admission.settle(others[0]->claim, true, Now{.wall = kNow, .mono = kNow});
  for (std::size_t i = 1; i < others.size(); ++i) CHECK(others[i]->verdict == Verdict::kNothingToWrite);
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
  admission.settle(batches.front()->claim, true, Now{.wall = kNow, .mono = kNow});
  TestBatch later({""});
  admission.decide(later);
  CHECK(later.verdict == Verdict::kAdmitted);
}

}  // namespace
}  // namespace kavach::quota
