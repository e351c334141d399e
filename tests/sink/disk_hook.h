// DiskHook: a disk that fails on command, for the code under test in this process.
//
// The test binary defines fsync(), fdatasync(), ftruncate() and pwritev() itself (disk_hook.cc); the linker
// takes these. While a DiskHook lives, each call asks it first; what it does not fail, and everything at
// other times, goes to the kernel.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace kavach::sink::test {

struct DiskCall {
  enum Kind { kSync, kSyncData, kTruncate, kWrite } kind;
  int fd;
  std::int64_t offset;  // where a write begins, or what a file is cut to
  std::string path;     // of the descriptor
};

class DiskHook {
 public:
  // Returns 0, or the errno with which the call fails and does nothing. Called on the thread that makes the
  // call, one at a time; it must not make such calls itself.
  using Ask = std::function<int(const DiskCall& call)>;

  explicit DiskHook(Ask ask);
  ~DiskHook();
  DiskHook(const DiskHook&) = delete;
  DiskHook& operator=(const DiskHook&) = delete;
};

}  // namespace kavach::sink::test
