#include "tests/sink/disk_hook.h"

#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <mutex>
#include <system_error>
#include <utility>

namespace kavach::sink::test {
namespace {

std::mutex mutex;
DiskHook::Ask current;  // guarded by mutex

int ask(DiskCall::Kind kind, int fd, std::int64_t offset = 0) {
  const std::lock_guard lock(mutex);
  if (!current) return 0;
  std::error_code gone;
  const auto path = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd), gone);
  return current({kind, fd, offset, path.string()});
}

// What a system call's wrapper returns.
template <typename... Arguments>
long finish(int error, long number, Arguments... arguments) {
  if (error == 0) return ::syscall(number, arguments...);
  errno = error;
  return -1;
}

}  // namespace

DiskHook::DiskHook(Ask ask) {
  const std::lock_guard lock(mutex);
  current = std::move(ask);
}

DiskHook::~DiskHook() {
  const std::lock_guard lock(mutex);
  current = nullptr;
}

}  // namespace kavach::sink::test

using kavach::sink::test::ask;
using kavach::sink::test::DiskCall;
using kavach::sink::test::finish;

extern "C" int fsync(int fd) {
  return static_cast<int>(finish(ask(DiskCall::kSync, fd), SYS_fsync, fd));
}
extern "C" int fdatasync(int fd) {
  return static_cast<int>(finish(ask(DiskCall::kSyncData, fd), SYS_fdatasync, fd));
}
extern "C" int ftruncate(int fd, off_t size) noexcept {
  return static_cast<int>(finish(ask(DiskCall::kTruncate, fd, size), SYS_ftruncate, fd, size));
}
extern "C" ssize_t pwritev(int fd, const iovec* parts, int count, off_t offset) {
  return finish(ask(DiskCall::kWrite, fd, offset), SYS_pwritev, fd, parts, count, offset, 0L);
}
