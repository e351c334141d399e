#include "http/auth/key_reports.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <map>
#include <utility>

#include "engine/log.h"

namespace kavach::http {
namespace {

constexpr auto kWriteEvery = std::chrono::seconds(1);
constexpr std::size_t kKeptMax = 100'000;

}  // namespace

KeyReports::~KeyReports() {
  stop();
}

void KeyReports::start() {
  thread_ = std::thread([this] {
    ::pthread_setname_np(::pthread_self(), "key-reports");
    run();
  });
}

void KeyReports::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void KeyReports::add(std::vector<sink::KeyUse> uses, std::vector<sink::RejectedAgent> rejected) {
  const std::lock_guard lock(mutex_);
  if (uses_.size() + uses.size() <= kKeptMax) uses_.insert(uses_.end(), uses.begin(), uses.end());
  if (rejected_.size() + rejected.size() <= kKeptMax)
    std::move(rejected.begin(), rejected.end(), std::back_inserter(rejected_));
}

void KeyReports::run() {
  for (bool stopping = false; !stopping;) {
    {
      std::unique_lock lock(mutex_);
      stopping = wake_.wait_for(lock, kWriteEvery, [this] { return stopping_; });
    }
    write();
  }
}

void KeyReports::write() {
  std::vector<sink::KeyUse> noted;
  std::vector<sink::RejectedAgent> rejected;
  {
    const std::lock_guard lock(mutex_);
    noted.swap(uses_);
    rejected.swap(rejected_);
  }
  if (!rejected.empty()) {
    if (const auto written = store_->record_rejections(rejected); !written) {
      log::debug("keys: {} rejected agents are written later: {}", rejected.size(), written.error().message);
      add({}, std::move(rejected));
    }
  }
  std::map<Uuid, sink::KeyUse> by_key;
  for (const sink::KeyUse& use : noted) {
    sink::KeyUse& sum = by_key[use.key_id];
    sum.key_id = use.key_id;
    sum.last_used_us = std::max(sum.last_used_us, use.last_used_us);
    sum.last_failed_us = std::max(sum.last_failed_us, use.last_failed_us);
    sum.failures += use.failures;
  }
  if (by_key.empty()) return;
  std::vector<sink::KeyUse> uses;
  uses.reserve(by_key.size());
  for (const auto& [id, use] : by_key) uses.push_back(use);
  if (const auto written = store_->record_key_use(uses); !written) {
    log::debug("keys: the use of {} keys is written later: {}", uses.size(), written.error().message);
    add(std::move(uses), {});
  }
}

}  // namespace kavach::http
