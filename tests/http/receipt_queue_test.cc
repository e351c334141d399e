// Who waits for the broker's receipt, how long, and which receipt is told. Time is an argument.
#include "http/ingest/receipt_queue.h"

#include <doctest/doctest.h>

#include <array>
#include <vector>

namespace kavach::http {
namespace {

constexpr std::int64_t kPatience = 1'000;

struct QueueFixture {
  sink::BrokerProgress progress;
  Gauge waiting;
  ReceiptQueue queue{0, &progress, waiting};
  std::array<int, 8> requests{};

  QueueFixture() { queue.set_options({.wait_for_broker = true, .patience_us = kPatience}); }

  std::optional<ReceiptClass> ask(std::uint64_t seq, MonoMicros now) {
    return queue.ask(seq, &requests[seq], now);
  }
  // The seqs of those that are answered now.
  std::vector<std::ptrdiff_t> answered(MonoMicros now, ReceiptClass receipt) {
    std::vector<std::ptrdiff_t> seqs;
    while (const auto answer = queue.next(now)) {
      CHECK(answer->receipt == receipt);
      seqs.push_back(static_cast<int*>(answer->request) - requests.data());
    }
    return seqs;
  }
  bool is_woken() {
    bool woken = false;
    progress.wake_waiting([&](std::uint32_t) { woken = true; });
    return woken;
  }
};

using Seqs = std::vector<std::ptrdiff_t>;

TEST_CASE_FIXTURE(QueueFixture, "what is acknowledged before its receipt comes is answered at once") {
  progress.publish(3, 3, 1);
  CHECK(ask(3, 1) == ReceiptClass::kBroker);
  CHECK(waiting.value() == 0);
}

TEST_CASE_FIXTURE(QueueFixture, "those that wait are answered in order, as far as Kafka has come") {
  for (const std::uint64_t seq : {1, 2, 4}) CHECK(ask(seq, 10) == std::nullopt);
  CHECK(waiting.value() == 3);
  progress.publish(3, 4, 20);
  CHECK(is_woken());
  CHECK(answered(20, ReceiptClass::kBroker) == Seqs{1, 2});
  progress.publish(4, 4, 30);
  CHECK(is_woken());
  CHECK(answered(30, ReceiptClass::kBroker) == Seqs{4});
  CHECK(waiting.value() == 0);
}

TEST_CASE_FIXTURE(QueueFixture, "nobody waits longer than the patience") {
  CHECK(ask(1, 10) == std::nullopt);
  CHECK(ask(2, 500) == std::nullopt);
  CHECK(answered(1'009, ReceiptClass::kJournal).empty());
  CHECK(answered(1'010, ReceiptClass::kJournal) == Seqs{1});
  CHECK(answered(1'500, ReceiptClass::kJournal) == Seqs{2});
}

TEST_CASE_FIXTURE(QueueFixture, "while the broker is away nobody waits") {
  CHECK(ask(1, 10) == std::nullopt);
  progress.set_stopped(true);
  CHECK(answered(20, ReceiptClass::kJournal) == Seqs{1});
  CHECK(ask(2, 30) == ReceiptClass::kJournal);
  progress.set_stopped(false);
  CHECK(ask(3, 40) == std::nullopt);
}

TEST_CASE_FIXTURE(QueueFixture, "batches are refused only while the broker is away, and only if so wanted") {
  progress.set_stopped(true);
  CHECK_FALSE(queue.refuses(10));
  queue.set_options({.wait_for_broker = true, .refuse_when_away = true, .patience_us = kPatience});
  CHECK(queue.refuses(10));
  // It is durable already, so it is not refused any more.
  CHECK(ask(1, 10) == ReceiptClass::kJournal);
  progress.set_stopped(false);
  CHECK_FALSE(queue.refuses(10));
  queue.set_options({.wait_for_broker = false, .refuse_when_away = true, .patience_us = kPatience});
  progress.set_stopped(true);
  CHECK_FALSE(queue.refuses(10));
}

TEST_CASE_FIXTURE(QueueFixture, "a receipt that was on its way behind a later number waits for that one") {
  CHECK(ask(5, 10) == std::nullopt);
  CHECK(ask(4, 10) == std::nullopt);
  progress.publish(4, 5, 20);
  CHECK(answered(20, ReceiptClass::kBroker).empty());
  progress.publish(5, 5, 30);
  CHECK(answered(30, ReceiptClass::kBroker) == Seqs{5, 4});
}

TEST_CASE_FIXTURE(QueueFixture, "a reload that ends the waiting answers those that wait") {
  CHECK(ask(1, 10) == std::nullopt);
  queue.set_options({.wait_for_broker = false});
  CHECK(answered(11, ReceiptClass::kJournal) == Seqs{1});
  CHECK(ask(2, 12) == ReceiptClass::kJournal);
}

TEST_CASE("without Kafka every receipt is the journal's") {
  Gauge waiting;
  ReceiptQueue queue(0, nullptr, waiting);
  queue.set_options({.wait_for_broker = true, .refuse_when_away = true});
  int request = 0;
  CHECK(queue.ask(1, &request, 1) == ReceiptClass::kJournal);
  CHECK_FALSE(queue.refuses(1));
  CHECK_FALSE(queue.next(1).has_value());
}

}  // namespace
}  // namespace kavach::http
