// What the journal's tests share: frames with known payloads, segments made by hand, a journal that is run
// and waited for, and the bytes of its directory, to look at and to damage.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine/crc32c.h"
#include "engine/log.h"
#include "sink/journal/journal.h"
#include "sink/journal/segment.h"
#include "tests/support/temp_folder.h"

namespace kavach::sink::test {

using kavach::test::TempFolder;
using Bytes = std::vector<std::uint8_t>;

// Damage and full disks are what these tests are about; nobody needs to read of them.
struct QuietLog {
  QuietLog() { log::set_level(log::Level::kOff); }
  ~QuietLog() { log::set_level(log::Level::kInfo); }
};

// A payload that no other frame has. 45 bytes need padding.
inline Bytes payload_number(std::uint64_t number, std::size_t size = 45) {
  Bytes payload(size);
  Random random(number);
  std::generate(payload.begin(), payload.end(), [&] { return static_cast<std::uint8_t>(random.next()); });
  return payload;
}

// --- segments by hand --------------------------------------------------------------------------------------

inline const Uuid kJournalId{{1, 2, 3, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 16}};

// A segment's bytes, group after group, as the journal writes them.
class SegmentBytes {
 public:
  struct Place {
    std::uint64_t seq;
    std::size_t begin, payload_end, end;  // `end` is behind the padding
  };

  explicit SegmentBytes(std::uint64_t id = 1, std::uint64_t first_seq = 1,
                        const Uuid& journal_id = kJournalId)
      : header{journal_id, id, first_seq}, bytes(kSegmentHeaderBytes), next_seq_(first_seq) {
    write_segment_header(header, bytes.data());
  }

  // One group commit of frames with the payloads payload_number(seq, size).
  void add_group(std::initializer_list<std::size_t> payload_sizes) {
    const std::uint64_t synced = next_seq_ - 1;
    for (const std::size_t size : payload_sizes) {
      add_frame(next_seq_, synced, payload_number(next_seq_, size));
      ++next_seq_;
    }
  }
  void add_frame(std::uint64_t seq, std::uint64_t synced_seq, const Bytes& payload) {
    const std::size_t begin = bytes.size();
    bytes.resize(begin + frame_file_bytes(payload.size()));
    write_frame_header({.payload_bytes = static_cast<std::uint32_t>(payload.size()),
                        .seq = seq,
                        .synced_seq = synced_seq,
                        .payload_crc = crc32c(0, payload.data(), payload.size())},
                       frame_salt(header), bytes.data() + begin);
    const std::size_t payload_begin = begin + kFrameHeaderBytes;
    std::copy(payload.begin(), payload.end(), bytes.begin() + static_cast<std::ptrdiff_t>(payload_begin));
    frames.push_back({seq, begin, payload_begin + payload.size(), bytes.size()});
  }

  SegmentHeader header;
  Bytes bytes;
  std::vector<Place> frames;

 private:
  std::uint64_t next_seq_;
};

// --- files -------------------------------------------------------------------------------------------------

inline Bytes read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE(in.good());
  return Bytes(std::istreambuf_iterator<char>(in), {});
}
inline void write_file(const std::string& path, const Bytes& bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  REQUIRE(out.good());
}
inline void flip_bit(Bytes& bytes, std::size_t bit) {
  bytes[bit / 8] = static_cast<std::uint8_t>(bytes[bit / 8] ^ 1U << (bit % 8));
}

inline std::vector<std::string> segment_paths(const std::string& directory) {
  const auto files = list_segments(directory);
  REQUIRE(files.has_value());
  std::vector<std::string> paths;
  for (const SegmentFile& file : *files) paths.push_back(file.path);
  return paths;
}

// --- a journal that runs -----------------------------------------------------------------------------------

inline std::unique_ptr<Journal> open_journal(const JournalOptions& options) {
  auto journal = Journal::open(options);
  if (!journal) FAIL(journal.error().message);
  return std::move(*journal);
}

// Why the journal cannot be opened; empty when it can.
inline std::string refusal(const JournalOptions& options) {
  const auto journal = Journal::open(options);
  return journal ? "" : journal.error().message;
}

using Payloads = std::map<std::uint64_t, Bytes>;  // by sequence number

// Everything that a follower gets behind `after`.
inline Payloads read_journal(const std::string& directory, std::uint64_t up_to, std::uint64_t after = 0,
                             CorruptionPolicy policy = CorruptionPolicy::kStop) {
  auto reader = JournalReader::open(directory, after, policy);
  REQUIRE(reader.has_value());
  Payloads found;
  for (;;) {
    const auto entry = (*reader)->next(up_to);
    if (!entry) FAIL(entry.error().message);
    if (!entry->has_value()) return found;
    CHECK((*entry)->seq <= up_to);
    CHECK((found.empty() || found.rbegin()->first < (*entry)->seq));
    found[(*entry)->seq] = Bytes((*entry)->payload.begin(), (*entry)->payload.end());
  }
}

// Owns the frames, notes what comes back in which order. One test thread plays all shards.
class RunningJournal {
 public:
  explicit RunningJournal(const JournalOptions& options, bool start_now = true)
      : journal_(open_journal(options)), delivered_(options.shards) {
    if (start_now) start();
  }
  ~RunningJournal() { journal_->stop(); }

  void start() {
    journal_->start([this](std::uint32_t shard, std::span<Frame* const> frames) {
      const std::lock_guard lock(mutex_);
      delivered_[shard].insert(delivered_[shard].end(), frames.begin(), frames.end());
      pending_ -= frames.size();
      came_back_.notify_all();
    });
  }

  Journal& operator*() { return *journal_; }
  Journal* operator->() { return journal_.get(); }

  // Null when the journal refuses. The journal's thread may sleep on until flush().
  Frame* submit(Bytes payload, std::uint32_t shard = 0) {
    Frame& frame = frames_.emplace_back();
    frame.payload = std::move(payload);
    frame.events = 1;
    frame.seal();
    return resubmit(&frame, shard);
  }
  Frame* resubmit(Frame* frame, std::uint32_t shard = 0) {
    {
      const std::lock_guard lock(mutex_);
      ++pending_;
    }
    if (journal_->submit(shard, frame)) return frame;
    const std::lock_guard lock(mutex_);
    --pending_;
    return nullptr;
  }
  // Wakes the journal and waits until everything has come back.
  void wait() {
    for (std::uint32_t shard = 0; shard < delivered_.size(); ++shard) journal_->flush(shard);
    std::unique_lock lock(mutex_);
    came_back_.wait(lock, [this] { return pending_ == 0; });
  }
  // One group commit of one frame.
  Receipt write(Bytes payload) {
    Frame* const frame = submit(std::move(payload));
    REQUIRE(frame != nullptr);
    wait();
    return frame->receipt;
  }
  // The frames [1, count] of payload_number().
  void write_numbers(std::uint64_t first, std::uint64_t last) {
    for (std::uint64_t n = first; n <= last; ++n) REQUIRE(write(payload_number(n)) == Receipt::kJournal);
  }

  // REQUIRES: nothing is under way.
  const std::vector<Frame*>& delivered(std::uint32_t shard = 0) const { return delivered_[shard]; }

 private:
  std::unique_ptr<Journal> journal_;
  std::deque<Frame> frames_;
  std::vector<std::vector<Frame*>> delivered_;  // by shard
  std::uint64_t pending_ = 0;
  std::mutex mutex_;
  std::condition_variable came_back_;
};

// A directory in memory with small segments.
struct JournalFixture {
  QuietLog quiet;
  TempFolder folder{kavach::test::memory()};
  JournalOptions options{.directory = folder.path().string(), .shards = 2, .segment_bytes = 64 << 10};

  std::string segment(std::uint64_t id) const { return segment_path(options.directory, id); }
  Payloads read(std::uint64_t up_to, std::uint64_t after = 0) const {
    return read_journal(options.directory, up_to, after);
  }
};

// The frames [first, last] of payload_number().
inline Payloads numbers(std::uint64_t first, std::uint64_t last) {
  Payloads payloads;
  for (std::uint64_t n = first; n <= last; ++n) payloads[n] = payload_number(n);
  return payloads;
}

}  // namespace kavach::sink::test
