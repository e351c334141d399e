// Power failures: random histories of writing, releasing, failing, ending and starting again, in which the
// disk keeps what was synced and any part of what was not. A map of frames says what must be read back.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include "tests/sink/disk_hook.h"
#include "tests/sink/journal_fixture.h"

namespace kavach::sink {
namespace {

using test::Bytes;
using test::DiskCall;
using test::DiskHook;
using test::JournalFixture;
using test::payload_number;
using test::Payloads;
using test::read_file;
using test::RunningJournal;
using test::write_file;

// Follows every sync in a directory, so that it knows what the disk has. Any thread.
class CrashDisk {
 public:
  // What the directory looks like after the power failed, and what had been promised by then.
  struct Image {
    std::map<std::string, Bytes> files;
    std::uint64_t promised_seq;
  };

  CrashDisk(std::string directory, std::uint64_t seed) : directory_(std::move(directory)), random_(seed) {}

  // The power fails in the middle of the n-th sync from now on. `promised` is asked at that moment.
  void fail_power_at(std::uint64_t sync, std::function<std::uint64_t()> promised) {
    const std::lock_guard lock(mutex_);
    image_.reset();
    syncs_left_ = sync;
    promised_ = std::move(promised);
  }
  // An image, now if the sync that it waited for did not come.
  Image take_image() {
    const std::lock_guard lock(mutex_);
    if (!image_) image_ = make_image();
    return *std::exchange(image_, std::nullopt);
  }
  void fail_next_sync() {
    const std::lock_guard lock(mutex_);
    fails_next_ = true;
  }

  // Makes the directory look like the image. REQUIRES: nobody uses it.
  void put_back(const Image& image) {
    const std::lock_guard lock(mutex_);
    syncs_left_ = 0;
    for (const auto& [path, inode] : names_now()) std::filesystem::remove(path);
    for (const auto& [path, bytes] : image.files) write_file(path, bytes);
    names_ = names_now();
    for (const auto& [path, inode] : names_) contents_[inode] = read_file(path);
  }

 private:
  using Names = std::map<std::string, ino_t>;

  Names names_now() const {
    Names names;
    for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
      struct stat status {};
      if (entry.path().filename() != "lock" && ::stat(entry.path().c_str(), &status) == 0)
        names[entry.path().string()] = status.st_ino;
    }
    return names;
  }

  int on_call(const DiskCall& call) {
    if (call.kind != DiskCall::kSync && call.kind != DiskCall::kSyncData) return 0;
    if (!call.path.starts_with(directory_)) return 0;
    const std::lock_guard lock(mutex_);
    if (syncs_left_ > 0 && --syncs_left_ == 0) image_ = make_image();
    if (std::exchange(fails_next_, false)) return EIO;
    if (call.path == directory_) {
      names_ = names_now();
    } else {
      struct stat status {};
      ::fstat(call.fd, &status);
      contents_[status.st_ino] = read_file(call.path);
    }
    return 0;
  }

  Image make_image() {
    Image image{{}, promised_ ? promised_() : 0};
    std::map<ino_t, std::string> reachable;
    for (const auto& [path, inode] : names_now()) reachable[inode] = path;
    for (const auto& [path, inode] : below(2) == 0 ? names_ : names_now()) {
      const auto now = reachable.find(inode);
      const Bytes synced = contents_[inode];
      image.files[path] = now != reachable.end() ? mixed(synced, read_file(now->second)) : synced;
    }
    return image;
  }

  // What was synced, and of what was written since nothing, all, the first part, or some sectors. A sector is
  // written whole or not at all, and a segment's header lies in one.
  Bytes mixed(Bytes synced, const Bytes& now) {
    constexpr std::size_t kSector = 512;
    synced.resize(now.size());
    const auto copy = [&](std::size_t begin, std::size_t end) {
      std::copy(now.begin() + static_cast<std::ptrdiff_t>(begin),
                now.begin() + static_cast<std::ptrdiff_t>(std::min(end, now.size())),
                synced.begin() + static_cast<std::ptrdiff_t>(begin));
    };
    const auto first = static_cast<std::size_t>(
        std::mismatch(synced.begin(), synced.end(), now.begin()).first - synced.begin());
    switch (below(4)) {
      case 0:
        break;
      case 1:
        return now;
      case 2:
        if (first < now.size()) copy(0, std::max(kSegmentHeaderBytes, first + below(now.size() - first)));
        break;
      default:
        for (std::size_t at = 0; at < now.size(); at += kSector)
          if (below(2) == 0) copy(at, at + kSector);
    }
    return synced;
  }

  std::uint64_t below(std::uint64_t bound) { return random_.next() % bound; }

  const std::string directory_;
  std::mutex mutex_;  // guards what follows
  Random random_;
  Names names_;                      // as of the directory's last sync
  std::map<ino_t, Bytes> contents_;  // as of each file's last sync
  std::uint64_t syncs_left_ = 0;
  std::function<std::uint64_t()> promised_;
  std::optional<Image> image_;
  bool fails_next_ = false;
  DiskHook hook_{[this](const DiskCall& call) { return on_call(call); }};
};

class History : JournalFixture {
 public:
  explicit History(std::uint64_t seed) : random_(seed), disk_(options.directory, ~seed) {
    options.segment_bytes = std::uint64_t{1024} << below(4);
    options.group_bytes_max = 400;
    open();
  }

  void step() {
    const bool power_fails = below(4) == 0;
    if (power_fails) disk_.fail_power_at(1 + below(4), [this] { return (*journal_)->durable_seq(); });
    if (!power_fails && below(40) == 0) {
      write_on_failing_disk();
    } else {
      write();
    }
    if (power_fails) {
      lose_power();
    } else if (below(6) == 0) {
      open();
    }
    if (below(3) == 0) release();
    check();
  }

 private:
  std::uint64_t below(std::uint64_t bound) { return random_.next() % bound; }

  void write() {
    std::vector<Frame*> frames;
    for (std::uint64_t left = 1 + below(8); left > 0; --left) {
      const std::size_t size = below(10) == 0 ? below(3000) : below(200);
      frames.push_back(journal_->submit(payload_number(++payloads_made_, size),
                                        static_cast<std::uint32_t>(below(options.shards))));
      REQUIRE(frames.back() != nullptr);
    }
    journal_->wait();
    for (const Frame* frame : frames)
      if (frame->receipt == Receipt::kJournal) log_[frame->seq] = frame->payload;
    failed_ = std::any_of(frames.begin(), frames.end(),
                          [](const Frame* frame) { return frame->receipt == Receipt::kFailed; });
  }

  void write_on_failing_disk() {
    disk_.fail_next_sync();
    write();
    CHECK(failed_);
    while (!(*journal_)->healthy()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }

  void release() {
    const std::uint64_t last = last_seq();
    released_ += last > released_ ? below(last - released_ + 1) : 0;
    (*journal_)->release(released_);
  }

  std::uint64_t last_seq() const { return log_.empty() ? 0 : log_.rbegin()->first; }

  // Ends in the middle of the step before; once in a while it fails again while the journal is being opened.
  void lose_power() {
    CrashDisk::Image image = disk_.take_image();
    journal_.reset();
    do {
      disk_.put_back(image);
      const std::uint64_t promised = image.promised_seq;
      disk_.fail_power_at(1 + below(3), [promised] { return promised; });
      open();
      const std::uint64_t last = (*journal_)->recovery().last_seq;
      CHECK(last >= promised);
      CHECK(last <= last_seq());
      CHECK((*journal_)->recovery().damaged_frames_skipped == 0);
      if (below(3) != 0) {
        log_.erase(log_.upper_bound(last), log_.end());
        break;
      }
      image = disk_.take_image();
      journal_.reset();
    } while (true);
  }

  // As at a start: the follower says how far it came.
  void open() {
    journal_.reset();
    journal_ = std::make_unique<RunningJournal>(options);
    (*journal_)->release(released_);
  }

  void check() {
    const std::uint64_t last = last_seq();
    CHECK((*journal_)->durable_seq() == last);
    CHECK((*journal_)->healthy());
    const Payloads expected(log_.upper_bound(released_), log_.end());
    if (last > released_) CHECK(read(last, released_) == expected);
  }

  Random random_;
  CrashDisk disk_;
  std::unique_ptr<RunningJournal> journal_;
  std::uint64_t payloads_made_ = 0;
  bool failed_ = false;  // some frame of the last write()
  Payloads log_;         // what was acknowledged, or read back after a power failure
  std::uint64_t released_ = 0;
};

TEST_CASE(
    "whatever the power failure leaves of what was not synced, what was acknowledged is read back, and "
    "nothing else") {
  for (std::uint64_t seed = 1; seed <= 25; ++seed) {
    CAPTURE(seed);
    History history(seed);
    for (int i = 0; i < 40; ++i) history.step();
  }
}

}  // namespace
}  // namespace kavach::sink
