// The journal on a disk that is full or broken: frames come back as failed and stay away, and when the disk
// is well again the journal goes on by itself.
//
// Full disks are real: a limit on the size of files (writing fails in the middle of a group) and a small file
// system (opening a segment fails). Broken ones are made by the disk hook.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <map>
#include <thread>

#include "tests/sink/disk_hook.h"
#include "tests/sink/journal_fixture.h"

namespace kavach::sink {
namespace {

using test::Bytes;
using test::DiskCall;
using test::DiskHook;
using test::JournalFixture;
using test::numbers;
using test::payload_number;
using test::Payloads;
using test::RunningJournal;

// No file of this process may grow beyond it, as long as it lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    handler_ = ::signal(SIGXFSZ, SIG_IGN);
    set(bytes);
  }
  ~FileSizeLimit() {
    set(before_.rlim_cur);
    ::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  void set(rlim_t bytes) const {
    const rlimit limit{bytes, before_.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  }
  rlimit before_{};
  void (*handler_)(int) = nullptr;
};

// A file system of its own, where this process may mount one.
class SmallDisk {
 public:
  explicit SmallDisk(const std::string& size) {
    mounted_ = ::mount("tmpfs", folder_.path().c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0;
  }
  ~SmallDisk() {
    if (mounted_) ::umount(folder_.path().c_str());
  }
  bool mounted() const { return mounted_; }
  std::string file(std::string_view name) const { return folder_.file(name); }

  // Takes all the space that is left.
  void fill() const {
    const std::filesystem::path filler = file("filler");
    std::ofstream out(filler, std::ios::binary);
    const std::string block(4096, 'x');
    while (out.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
    }
  }
  void make_room() const { std::filesystem::remove(file("filler")); }

 private:
  test::TempFolder folder_;
  bool mounted_ = false;
};

// Without anything being submitted.
void wait_until_healthy(RunningJournal& journal) {
  while (!journal->healthy()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

struct FailureFixture : JournalFixture {
  // What is read back, now and after the journal is opened again.
  void check_log(std::unique_ptr<RunningJournal> journal, std::uint64_t last,
                 const Payloads& expected) const {
    CHECK((*journal)->durable_seq() == last);
    CHECK(read(last) == expected);
    journal.reset();
    CHECK(test::open_journal(options)->recovery().last_seq == last);
    CHECK(read(last) == expected);
  }
};

TEST_CASE_FIXTURE(FailureFixture, "a disk that is full in the middle of a group fails the whole group") {
  auto journal = std::make_unique<RunningJournal>(options);
  journal->write_numbers(1, 10);
  std::vector<Frame*> failed;
  {
    // Three frames of 80 bytes: the limit lies in the second one.
    const FileSizeLimit limit(kSegmentHeaderBytes + 10 * 80 + 120);
    for (std::uint64_t n = 91; n <= 93; ++n) failed.push_back(journal->submit(payload_number(n)));
    journal->wait();
    for (const Frame* frame : failed) CHECK(frame->receipt == Receipt::kFailed);
    CHECK_FALSE((*journal)->healthy());
    CHECK((*journal)->durable_seq() == 10);
    CHECK((*journal)->metrics().failures.value() >= 1);
    CHECK(read(10) == numbers(1, 10));
    // Also the next one, for which no segment can be opened.
    CHECK(journal->write(payload_number(94)) == Receipt::kFailed);
  }
  wait_until_healthy(*journal);
  journal->write_numbers(11, 12);
  check_log(std::move(journal), 12, numbers(1, 12));
}

TEST_CASE_FIXTURE(FailureFixture, "a frame that failed may be handed over again, and is then there once") {
  auto journal = std::make_unique<RunningJournal>(options);
  Frame* frame = nullptr;
  {
    const FileSizeLimit limit(100);
    frame = journal->submit(payload_number(1));
    journal->wait();
    CHECK(frame->receipt == Receipt::kFailed);
  }
  wait_until_healthy(*journal);
  REQUIRE(journal->resubmit(frame) == frame);
  journal->wait();
  CHECK(frame->receipt == Receipt::kJournal);
  check_log(std::move(journal), 1, numbers(1, 1));
}

TEST_CASE("a file system without space fails what comes until there is room, and loses nothing") {
  const SmallDisk disk("256k");
  if (!disk.mounted()) {
    MESSAGE("not tried: a file system can only be mounted by root");
    return;
  }
  const test::QuietLog quiet;
  const JournalOptions options{.directory = disk.file("journal"), .segment_bytes = 32 << 10};
  std::uint64_t written = 0;
  {
    RunningJournal journal(options);
    journal.write_numbers(1, 1);
    disk.fill();
    // What was preallocated can still be used; the next segment cannot be made.
    while (journal.write(payload_number(++written + 1)) == Receipt::kJournal) REQUIRE(written < 10'000);
    CHECK(written > 100);
    CHECK_FALSE(journal->healthy());
    CHECK(journal.write(payload_number(1)) == Receipt::kFailed);
    CHECK(test::read_journal(options.directory, written) == numbers(1, written));
    disk.make_room();
    wait_until_healthy(journal);
    journal.write_numbers(written + 1, written + 10);
    // Until the bound of the disk again, this time with something to release.
    disk.fill();
    journal->release(written);
    while (journal.write(payload_number(++written + 10)) == Receipt::kJournal) REQUIRE(written < 10'000);
  }
  disk.make_room();
  const auto journal = test::open_journal(options);
  CHECK(journal->durable_seq() == written + 9);
  const std::uint64_t released = journal->released_seq();
  CHECK(test::read_journal(options.directory, written + 9, released) == numbers(released + 1, written + 9));
}

TEST_CASE_FIXTURE(FailureFixture,
                  "a journal that cannot even make its first segment says so in its receipts") {
  options.directory = folder.file("journal");
  RunningJournal journal(options);
  {
    const DiskHook broken([](const DiskCall&) { return EIO; });
    CHECK(journal.write(payload_number(1)) == Receipt::kFailed);
    CHECK_FALSE(journal->healthy());
    CHECK(test::segment_paths(options.directory).empty());
  }
  wait_until_healthy(journal);
  CHECK(journal.write(payload_number(1)) == Receipt::kJournal);
}

// The kernel reports a failed write-back once and then calls the pages clean (fsync(2), NOTES).
TEST_CASE_FIXTURE(FailureFixture,
                  "after a sync that failed no later sync of that file acknowledges anything") {
  auto journal = std::make_unique<RunningJournal>(options);
  journal->write_numbers(1, 3);
  std::map<std::string, int> syncs_after;
  std::string failed_file;
  {
    const DiskHook failing_once([&](const DiskCall& call) {
      if (call.kind != DiskCall::kSyncData) return 0;
      if (failed_file.empty()) {
        failed_file = call.path;
        return EIO;
      }
      ++syncs_after[call.path];
      return 0;
    });
    CHECK(journal->write(payload_number(94)) == Receipt::kFailed);
    wait_until_healthy(*journal);
    journal->write_numbers(4, 8);
  }
  CHECK(failed_file == segment(1));
  CHECK(syncs_after[segment(1)] <= 1);  // of the cut
  CHECK(syncs_after[segment(2)] == 5);
  check_log(std::move(journal), 8, numbers(1, 8));
}

TEST_CASE_FIXTURE(FailureFixture, "a group that failed stays away also when its bytes cannot be cut off") {
  auto journal = std::make_unique<RunningJournal>(options);
  journal->write_numbers(1, 3);
  {
    const DiskHook broken([](const DiskCall&) { return EIO; });
    CHECK(journal->write(payload_number(94)) == Receipt::kFailed);
    CHECK(journal->write(payload_number(95)) == Receipt::kFailed);
  }
  // All of it is in the first file, whole, with a right checksum; the follower still does not get it ...
  CHECK(read(3) == numbers(1, 3));
  // ... and when the journal goes on, the next segment says where the first one ends.
  wait_until_healthy(*journal);
  journal->write_numbers(4, 4);
  check_log(std::move(journal), 4, numbers(1, 4));
}

TEST_CASE_FIXTURE(FailureFixture,
                  "a group that failed does not come back when the process ends before the disk is well") {
  {
    RunningJournal journal(options);
    journal.write_numbers(1, 3);
    const DiskHook broken([](const DiskCall& call) {
      return call.kind == DiskCall::kSync || call.kind == DiskCall::kSyncData ? EIO : 0;
    });
    CHECK(journal.write(payload_number(94)) == Receipt::kFailed);
    journal->stop();
  }
  CHECK(test::open_journal(options)->durable_seq() == 3);
  CHECK(read(3) == numbers(1, 3));
}

TEST_CASE_FIXTURE(FailureFixture,
                  "a first group that failed leaves no file, and its number to the next one") {
  auto journal = std::make_unique<RunningJournal>(options);
  {
    int syncs = 0;
    const DiskHook second_sync(
        [&](const DiskCall& call) { return call.kind == DiskCall::kSyncData && ++syncs == 1 ? EIO : 0; });
    CHECK(journal->write(payload_number(94)) == Receipt::kFailed);
  }
  wait_until_healthy(*journal);
  journal->write_numbers(1, 2);
  check_log(std::move(journal), 2, numbers(1, 2));
}

TEST_CASE_FIXTURE(FailureFixture,
                  "a directory that cannot be synced fails the group that needs a new segment") {
  options.segment_bytes = 1000;  // 11 frames
  auto journal = std::make_unique<RunningJournal>(options);
  journal->write_numbers(1, 11);
  {
    const DiskHook broken([&](const DiskCall& call) { return call.path == options.directory ? EIO : 0; });
    CHECK(journal->write(payload_number(94)) == Receipt::kFailed);
  }
  wait_until_healthy(*journal);
  journal->write_numbers(12, 13);
  check_log(std::move(journal), 13, numbers(1, 13));
}

TEST_CASE_FIXTURE(FailureFixture, "a disk that fails again and again loses nothing and repeats nothing") {
  options.segment_bytes = 1000;
  auto journal = std::make_unique<RunningJournal>(options);
  Random random(1);
  std::uint64_t last = 0;
  {
    const DiskHook flaky([&](const DiskCall&) { return random.next() % 5 == 0 ? EIO : 0; });
    std::uint64_t failures = 0;
    while (last < 40 || failures < 5) {
      if (journal->write(payload_number(last + 1)) == Receipt::kJournal) {
        ++last;
        CHECK((*journal)->durable_seq() == last);
      } else {
        ++failures;
        CHECK((*journal)->durable_seq() == last);
        wait_until_healthy(*journal);
      }
    }
  }
  check_log(std::move(journal), last, numbers(1, last));
}

TEST_CASE_FIXTURE(FailureFixture,
                  "stop() comes to its end on a broken disk, and nothing is said to be durable") {
  RunningJournal journal(options);
  const DiskHook broken([](const DiskCall&) { return EIO; });
  for (std::uint64_t n = 1; n <= 20; ++n) REQUIRE(journal.submit(payload_number(n)) != nullptr);
  journal->stop();
  REQUIRE(journal.delivered().size() == 20);
  for (const Frame* frame : journal.delivered()) CHECK(frame->receipt == Receipt::kFailed);
}

TEST_CASE_FIXTURE(FailureFixture,
                  "what a killed process may have left unsynced is written anew, not only synced again") {
  { RunningJournal(options).write_numbers(1, 3); }
  std::vector<std::int64_t> written_at;
  {
    const DiskHook noting([&](const DiskCall& call) {
      if (call.kind == DiskCall::kWrite && call.path == segment(1)) written_at.push_back(call.offset);
      return 0;
    });
    test::open_journal(options);
  }
  // The last group, of one frame of 80 bytes: those before it are proven by it.
  CHECK(written_at == std::vector<std::int64_t>{kSegmentHeaderBytes + 2 * 80});
  CHECK(read(3) == numbers(1, 3));
}

TEST_CASE_FIXTURE(FailureFixture, "a journal whose last segment cannot be synced is not opened") {
  { RunningJournal(options).write_numbers(1, 3); }
  {
    const DiskHook broken([&](const DiskCall& call) {
      return call.kind == DiskCall::kSync && call.path == segment(1) ? EIO : 0;
    });
    CHECK(test::refusal(options).find("cannot sync " + segment(1)) != std::string::npos);
  }
  CHECK(test::open_journal(options)->durable_seq() == 3);
}

}  // namespace
}  // namespace kavach::sink
