#include "bench/load/generator.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "engine/check.h"

namespace kavach::bench {
namespace {

constexpr Nanos kNanosPerSecond = 1'000'000'000;
constexpr Nanos kNever = std::numeric_limits<Nanos>::max();
// How often connections are looked at for answers that do not come, and how long a wait takes at most.
constexpr Nanos kExpiryEvery = kNanosPerSecond / 20;

Nanos to_ns(double seconds) {
  return static_cast<Nanos>(seconds * static_cast<double>(kNanosPerSecond));
}

std::uint64_t own_cpu_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<std::uint64_t>(Nanos{t.tv_sec} * kNanosPerSecond + t.tv_nsec);
}

// In OTLP the message of what was not taken is empty when all was, or left out.
Expected expected_answer(const LoadOptions& options) {
  if (options.format == Format::kOtlp) return {"HTTP/1.1 200 ", std::string("\n\0", 2), true};
  return {"HTTP/1.1 202 ", fmt::format(R"({{"accepted":{},"rejected":0,)", options.events), false};
}

}  // namespace

Generator::Generator(const LoadOptions& options)
    : options_(options),
      expected_(expected_answer(options)),
      source_(options),
      is_free_(options.connections) {
  // A sleep until the next request is due must not end late.
  ::prctl(PR_SET_TIMERSLACK, 1UL);
  epoll_fd_ = ::epoll_create1(EPOLL_CLOEXEC);
  KAVACH_CHECK(epoll_fd_ >= 0, "no epoll");
  for (std::size_t i = 0; i < options_.connections; ++i) {
    const Peer& peer = *peers_.emplace_back(std::make_unique<Peer>(options_, expected_));
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLET;
    event.data.u64 = i;
    KAVACH_CHECK(::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, peer.fd(), &event) == 0, "epoll takes a socket");
    offer(i);
  }
  alive_ = peers_.size();
}

Generator::~Generator() {
  ::close(epoll_fd_);
}

LoadReport Generator::run() {
  start_ = now_ns();
  window_begin_ = start_ + to_ns(options_.warmup_s);
  window_end_ = options_.requests > 0 ? kNever : window_begin_ + to_ns(options_.duration_s);
  for (;;) {
    const Nanos now = now_ns();
    advance_phase(now);
    start_requests(now);
    if (finished()) break;
    expire(now);
    wait_and_serve(now);
  }
  close_window(now_ns());
  // Due within the window, and no connection was free for it until the patience ended.
  if (options_.rate > 0 && !report_.ran_out) {
    const auto due = static_cast<std::uint64_t>(static_cast<double>(window_end_ - start_) /
                                                static_cast<double>(kNanosPerSecond) * options_.rate);
    if (due > started_) report_.faults["not sent in time"] += due - started_;
  }
  return std::move(report_);
}

void Generator::advance_phase(Nanos now) {
  if (phase_ == Phase::kWarmup && now >= window_begin_) {
    phase_ = Phase::kWindow;
    opened_at_ = now;
    server_before_ = cpu_times(options_.server_pids);
    own_before_ = own_cpu_ns();
  }
  if (phase_ == Phase::kWindow && now >= window_end_) close_window(now);
}

void Generator::close_window(Nanos now) {
  const Phase before = std::exchange(phase_, Phase::kDrain);
  if (before != Phase::kWindow) return;
  window_end_ = std::min(window_end_, now);
  report_.window_s = static_cast<double>(now - opened_at_) / static_cast<double>(kNanosPerSecond);
  report_.server_cpu = cpu_times(options_.server_pids) - server_before_;
  report_.own_cpu_ns = own_cpu_ns() - own_before_;
}

Nanos Generator::next_due() const noexcept {
  if (report_.ran_out || (options_.requests > 0 && started_ == options_.requests)) return kNever;
  if (options_.rate == 0) return phase_ == Phase::kDrain ? kNever : start_;
  const Nanos due = start_ + to_ns(static_cast<double>(started_) / options_.rate);
  return due < window_end_ ? due : kNever;
}

void Generator::start_requests(Nanos now) {
  const bool closed_loop = options_.rate == 0;
  while (!free_.empty()) {
    if (next_due() > now) return;
    const std::size_t index = free_.front();
    free_.pop_front();
    is_free_[index] = false;
    Peer& peer = *peers_[index];
    if (peer.broken()) continue;
    // A closed loop fills the pipeline at once, so that its requests leave together.
    do {
      const Nanos due = closed_loop ? now : next_due();
      if (!source_.append_next(index, peer.outgoing())) {
        report_.ran_out = true;
        close_window(now);
        break;
      }
      peer.started(due);
      ++started_;
      ++under_way_;
    } while (closed_loop && peer.under_way() < options_.pipeline && next_due() <= now);
    peer.flush();
    offer(index);
  }
}

void Generator::offer(std::size_t peer) {
  if (is_free_[peer] || peers_[peer]->under_way() >= options_.pipeline) return;
  is_free_[peer] = true;
  free_.push_back(peer);
}

void Generator::wait_and_serve(Nanos now) {
  const Nanos due = free_.empty() ? kNever : next_due();
  const Nanos boundary = phase_ == Phase::kWarmup ? window_begin_ : window_end_;
  Nanos until = std::min(due, next_expiry_);
  if (phase_ != Phase::kDrain) until = std::min(until, boundary);
  const Nanos patience = options_.spin ? 0 : std::max<Nanos>(until - now, 0);
  const timespec timeout{patience / kNanosPerSecond, patience % kNanosPerSecond};
  std::array<epoll_event, 256> events;
  const int count =
      ::epoll_pwait2(epoll_fd_, events.data(), static_cast<int>(events.size()), &timeout, nullptr);
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    on_events(event.data.u64, event.events);
  }
}

void Generator::on_events(std::size_t index, std::uint32_t events) {
  Peer& peer = *peers_[index];
  if (peer.broken()) return;
  if ((events & EPOLLOUT) != 0) peer.flush();
  if ((events & ~std::uint32_t{EPOLLOUT}) == 0) return;
  const Nanos now = now_ns();
  peer.read([&](Nanos due, const Fault& fault) { on_answer(due, fault, now); });
  if (peer.broken()) return drop(index);
  offer(index);
  start_requests(now);
}

void Generator::on_answer(Nanos due, const Fault& fault, Nanos now) {
  --under_way_;
  if (!fault.empty()) {
    ++report_.faults[fault];
    return;
  }
  if (phase_ == Phase::kWindow && now < window_end_) ++report_.answers;
  if (due >= window_begin_ && due < window_end_) {
    report_.latency_ns.record(static_cast<std::uint64_t>(now - due));
  }
}

void Generator::expire(Nanos now) {
  if (now < next_expiry_) return;
  next_expiry_ = now + kExpiryEvery;
  const Nanos patience = to_ns(options_.timeout_s);
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    Peer& peer = *peers_[i];
    if (peer.broken() || peer.under_way() == 0 || now - peer.oldest() < patience) continue;
    peer.give_up("no answer in time", [&](Nanos due, const Fault& fault) { on_answer(due, fault, now); });
    drop(i);
  }
}

void Generator::drop(std::size_t peer) {
  ::epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, peers_[peer]->fd(), nullptr);
  --alive_;
}

bool Generator::finished() const noexcept {
  if (alive_ == 0) return true;
  return under_way_ == 0 && phase_ != Phase::kWarmup && next_due() == kNever;
}

}  // namespace kavach::bench
