// kavach-disk: what the disk takes for one group commit, without Kavach. Writes and syncs groups of one size
// into a file that is preallocated and was written before, as a recycled segment of the journal is, from one
// thread that does nothing else.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/uio.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <iostream>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "bench/support/histogram.h"

namespace kavach::bench {
namespace {

using SteadyClock = std::chrono::steady_clock;

struct DiskOptions {
  std::string directory = ".";
  std::size_t group_bytes = 256 << 10;
  std::size_t frames = 64;  // parts of one pwritev, as a group has frames
  std::size_t file_bytes = 64 << 20;
  double rate = 0;
  double duration_s = 3;
  bool json = false;
};

void check(bool ok, const char* what) {
  if (!ok) throw std::system_error(errno, std::generic_category(), what);
}

// A file below `directory` that has no name any more, so that nothing is left of it.
class ScratchFile {
 public:
  ScratchFile(const std::string& directory, std::size_t bytes) {
    std::string path = directory + "/kavach-disk-XXXXXX";
    fd_ = ::mkostemp(path.data(), O_CLOEXEC);
    check(fd_ >= 0, "cannot make a file in --directory");
    ::unlink(path.c_str());
    errno = ::posix_fallocate(fd_, 0, static_cast<off_t>(bytes));
    check(errno == 0, "cannot preallocate");
    const std::vector<char> zeros(1 << 20);
    for (std::size_t at = 0; at < bytes; at += zeros.size()) {
      check(::pwrite(fd_, zeros.data(), std::min(zeros.size(), bytes - at), static_cast<off_t>(at)) > 0,
            "cannot write");
    }
    check(::fsync(fd_) == 0, "cannot sync");
  }
  ~ScratchFile() { ::close(fd_); }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  int fd() const noexcept { return fd_; }

 private:
  int fd_ = -1;
};

Histogram measure(const DiskOptions& options) {
  const ScratchFile file(options.directory, options.file_bytes);
  std::vector<char> group(options.group_bytes, 'k');
  std::vector<iovec> parts;
  const std::size_t step = std::max<std::size_t>(options.group_bytes / options.frames, 1);
  for (std::size_t at = 0; at < group.size(); at += step) {
    parts.push_back({group.data() + at, std::min(step, group.size() - at)});
  }
  Histogram commits;
  std::size_t offset = 0;
  const auto begin = SteadyClock::now();
  const auto end = begin + std::chrono::duration<double>(options.duration_s);
  for (std::uint64_t i = 0; SteadyClock::now() < end; ++i) {
    if (options.rate > 0) {
      std::this_thread::sleep_until(begin +
                                    std::chrono::duration<double>(static_cast<double>(i) / options.rate));
    }
    if (offset + group.size() > options.file_bytes) offset = 0;
    const auto started = SteadyClock::now();
    const ssize_t written =
        ::pwritev(file.fd(), parts.data(), static_cast<int>(parts.size()), static_cast<off_t>(offset));
    check(written == static_cast<ssize_t>(group.size()), "cannot write");
    check(::fdatasync(file.fd()) == 0, "cannot sync");
    commits.record(static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(SteadyClock::now() - started).count()));
    offset += group.size();
  }
  return commits;
}

int run(int argc, char** argv) {
  DiskOptions options;
  CLI::App app{"kavach-disk: the disk's own time for one group commit (pwritev + fdatasync, recycled file)"};
  app.add_option("--directory", options.directory, "On the disk that is meant")->capture_default_str();
  app.add_option("--group-bytes", options.group_bytes, "Bytes of a group")
      ->check(CLI::Range(std::size_t{1}, std::size_t{64} << 20))
      ->capture_default_str();
  app.add_option("--frames", options.frames, "Frames of a group, about")
      ->check(CLI::Range(std::size_t{1}, std::size_t{512}))
      ->capture_default_str();
  app.add_option("--rate", options.rate, "Groups per second; 0: one after the other")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--duration", options.duration_s, "Seconds")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--json", options.json, "One JSON object instead of text");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  options.file_bytes = std::max(options.file_bytes, options.group_bytes);
  const Histogram commits = measure(options);
  const auto micros = [&](double quantile) { return static_cast<double>(commits.value_at(quantile)) / 1000; };
  if (options.json) {
    std::cout << fmt::format(
        R"({{"commits":{},"p50":{:.1f},"p90":{:.1f},"p99":{:.1f},"p99_9":{:.1f},"max":{:.1f}}})",
        commits.count(), micros(0.5), micros(0.9), micros(0.99), micros(0.999), micros(1));
  } else {
    std::cout << fmt::format("commits {}; us: p50 {:.0f}  p90 {:.0f}  p99 {:.0f}  p99.9 {:.0f}  max {:.0f}",
                             commits.count(), micros(0.5), micros(0.9), micros(0.99), micros(0.999),
                             micros(1));
  }
  std::cout << std::endl;
  return 0;
}

}  // namespace
}  // namespace kavach::bench

int main(int argc, char** argv) {
  try {
    return kavach::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "kavach-disk: " << error.what() << '\n';
    return 1;
  }
}
