// A home shard's admission on a node that is its own fleet, with organizations, agents and batches under way,
// for the benchmarks of verdicts.
//
// Owner thread only; next_request() may have another one than admission(). Its clock is made up: it moves
// with every batch, as on a node with 20,000 batches a second.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/ids.h"
#include "quota/admission.h"

namespace kavach::bench {

class QuotaNode {
 public:
  struct Options {
    std::uint32_t orgs = 1;
    std::uint32_t agents = 10;       // of each organization, known before the first batch
    std::uint32_t events = 100;      // of a batch
    std::uint64_t keys = 1'000'000;  // remembered before the first batch
    std::int64_t full_seconds = 0;   // of the burst window, that every organization has used before
    bool with_keys = true;           // otherwise nothing is deduplicated
    std::size_t under_way = 64;      // batches that are decided and not settled yet
  };
  explicit QuotaNode(const Options& options);
  QuotaNode(const QuotaNode&) = delete;
  QuotaNode& operator=(const QuotaNode&) = delete;

  // The next batch, in the place of the oldest one: of a random organization and one of its agents, with
  // fresh keys.
  quota::AdmissionRequest& next_request();
  // Settles the oldest batch under way and decides a new one in its place; returns how many of its events
  // were admitted.
  std::uint64_t turn();

  quota::Admission& admission() { return admission_; }
  quota::Now now() const { return now_; }

 private:
  void fill_burst_windows();

  Options options_;
  quota::Now now_;
  Random random_{1};
  std::vector<Uuid> orgs_;
  quota::LocalFleet fleet_;
  quota::Ledger ledger_{{}, fleet_};
  quota::Admission admission_;
  std::vector<Event> numbers_;
  std::vector<quota::AdmissionRequest> requests_;
  std::size_t turns_ = 0;
};

}  // namespace kavach::bench
