#include "sink/writer/store_for_writer.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace kavach::sink {
namespace {

constexpr std::int64_t kPruneEvery = 60 * kMicrosPerSecond;
constexpr std::uint64_t kPruneRows = 10'000;
// Partitions lag differently: what another one still has to store may be this much older.
constexpr std::int64_t kLagAllowed = 24 * kMicrosPerHour;

WriteFailure write_failure(const StoreFailure& failure) {
  const WriteError error = failure.fenced      ? WriteError::kFenced
                           : failure.refused   ? WriteError::kRefused
                           : failure.retryable ? WriteError::kAway
                                               : WriteError::kBroken;
  return {error, failure.message};
}

class StoreForWriter final : public WriterStore {
 public:
  StoreForWriter(std::unique_ptr<Store> store, std::int64_t dedup_window_us, const Clock& clock)
      : store_(std::move(store)), dedup_window_us_(dedup_window_us), clock_(clock) {}

  Result<std::vector<StoredPosition>, WriteFailure> claim(std::string_view topic,
                                                          std::span<const std::int32_t> partitions) override {
    std::vector<StoredPosition> claimed;
    for (const std::int32_t partition : partitions) {
      const auto position = store_->claim_partition(topic, partition);
      if (!position) return write_failure(position.error());
      claimed.push_back(
          {.partition = partition, .next_offset = position->next_offset, .generation = position->generation});
      stored_[partition] = *position;
    }
    return claimed;
  }

  Result<ApplyOutcome, WriteFailure> apply(std::string_view topic, std::span<const Batch> batches,
                                           std::span<const Uuid> nodes,
                                           std::span<const StoredPosition> positions) override {
    std::vector<PartitionPosition> before;
    std::vector<PartitionPosition> after;
    for (const StoredPosition& position : positions) {
      before.push_back(stored_.at(position.partition));
      after.push_back({.topic = std::string(topic),
                       .partition = position.partition,
                       .generation = position.generation,
                       .next_offset = position.next_offset.value_or(0)});
    }
    std::vector<Uuid> takers(nodes.begin(), nodes.end());
    std::sort(takers.begin(), takers.end());
    takers.erase(std::unique(takers.begin(), takers.end()), takers.end());

    ApplyOutcome total;
    if (takers.size() <= 1) {
      auto outcome = store_->apply_at(batches, takers.empty() ? Uuid{} : takers.front(), after);
      if (!outcome) return write_failure(outcome.error());
      total = *outcome;
    } else {
      // A transaction for each node, and the last one moves the positions: what the others stored is known by
      // its ids when it comes again.
      for (const Uuid& taker : takers) {
        std::vector<Batch> own;
        for (std::size_t i = 0; i < batches.size(); ++i) {
          if (nodes[i] == taker) own.push_back(batches[i]);
        }
        auto outcome = store_->apply_at(own, taker, taker == takers.back() ? after : before);
        if (!outcome) return write_failure(outcome.error());
        total.stored += outcome->stored;
        total.duplicates += outcome->duplicates;
      }
    }
    for (PartitionPosition& position : after) stored_[position.partition] = std::move(position);
    prune();
    return total;
  }

 private:
  void prune() {
    if (clock_.mono() < next_prune_) return;
    const bool keys_age = dedup_window_us_ > 0;
    const auto pruned =
        store_->prune(keys_age ? clock_.wall() - dedup_window_us_ - kLagAllowed : 0, kPruneRows);
    // With a full hand there is more.
    next_prune_ = pruned && *pruned >= kPruneRows ? clock_.mono() : clock_.mono() + kPruneEvery;
  }

  const std::unique_ptr<Store> store_;
  const std::int64_t dedup_window_us_;
  const Clock& clock_;
  std::map<std::int32_t, PartitionPosition> stored_;
  MonoMicros next_prune_ = 0;
};

}  // namespace

std::unique_ptr<WriterStore> store_for_writer(std::unique_ptr<Store> store, std::int64_t dedup_window_us,
                                              const Clock& clock) {
  return std::make_unique<StoreForWriter>(std::move(store), dedup_window_us, clock);
}

}  // namespace kavach::sink
