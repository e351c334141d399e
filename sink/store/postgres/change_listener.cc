#include "sink/store/postgres/change_listener.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <utility>

#include "engine/log.h"
#include "sink/store/postgres/session.h"

namespace kavach::sink {
namespace {

constexpr int kReconnectMs = 1'000;
constexpr std::int64_t kReplyTimeoutMs = 5'000;
// A server that is gone without a word is noticed by asking it.
constexpr int kAskEveryMs = 10'000;

}  // namespace

ChangeListener::ChangeListener(std::string url, std::function<void()> changed)
    : url_(std::move(url)), changed_(std::move(changed)), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  thread_ = std::thread([this] {
    ::pthread_setname_np(::pthread_self(), "listener");
    run();
  });
}

ChangeListener::~ChangeListener() {
  stopping_ = true;
  ::eventfd_write(wake_, 1);
  thread_.join();
  ::close(wake_);
}

void ChangeListener::sleep(int milliseconds) const {
  pollfd woken{wake_, POLLIN, 0};
  ::poll(&woken, 1, milliseconds);
}

void ChangeListener::run() {
  while (!stopping_) {
    auto session = connect_postgres(url_, kReplyTimeoutMs);
    if (session && (*session)->execute("LISTEN kavach_directory")) {
      changed_();
      while (!stopping_) {
        const auto heard = (*session)->wait_for_notice(wake_, kAskEveryMs);
        if (!heard) break;
        if (*heard) {
          changed_();
        } else if (!stopping_ && !(*session)->execute("SELECT 1")) {
          break;
        }
      }
    }
    if (stopping_) return;
    log::debug("listener: no connection to Postgres; changes are found by polling");
    sleep(kReconnectMs);
  }
}

}  // namespace kavach::sink
