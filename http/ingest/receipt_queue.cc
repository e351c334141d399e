#include "http/ingest/receipt_queue.h"

#include <algorithm>

namespace kavach::http {

bool ReceiptQueue::refuses(MonoMicros now) const {
  return waits() && options_.refuse_when_away && progress_->away(now, options_.patience_us);
}

std::optional<ReceiptClass> ReceiptQueue::ask(std::uint64_t seq, void* request, MonoMicros now) {
  if (!waits()) return ReceiptClass::kJournal;
  if (progress_->acknowledged() >= seq) return ReceiptClass::kBroker;
  if (options_.patience_us == 0 || progress_->away(now, options_.patience_us)) return ReceiptClass::kJournal;
  // The journal delivers a shard's frames in order; only who waits for "all that is durable" may be ahead of
  // a receipt that is on its way. That one waits a little longer than it has to.
  if (!waiting_.empty()) seq = std::max(seq, waiting_.back().seq);
  if (waiting_.empty() && !progress_->await(shard_, seq)) return ReceiptClass::kBroker;
  waiting_.push_back({seq, now, request});
  waiting_gauge_.set(static_cast<std::int64_t>(waiting_.size()));
  return std::nullopt;
}

std::optional<ReceiptQueue::Answer> ReceiptQueue::next(MonoMicros now) {
  if (waiting_.empty()) return std::nullopt;
  const Waiting& first = waiting_.front();
  if (progress_->acknowledged() >= first.seq) return pop(ReceiptClass::kBroker);
  if (!waits() || now - first.since >= options_.patience_us || progress_->away(now, options_.patience_us))
    return pop(ReceiptClass::kJournal);
  if (!progress_->await(shard_, first.seq)) return pop(ReceiptClass::kBroker);
  return std::nullopt;
}

std::optional<ReceiptQueue::Answer> ReceiptQueue::give_up() {
  if (waiting_.empty()) return std::nullopt;
  return pop(ReceiptClass::kJournal);
}

ReceiptQueue::Answer ReceiptQueue::pop(ReceiptClass receipt) {
  const Answer answer{waiting_.front().request, receipt};
  waiting_.pop_front();
  waiting_gauge_.set(static_cast<std::int64_t>(waiting_.size()));
  return answer;
}

}  // namespace kavach::http
