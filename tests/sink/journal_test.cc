// The journal, written, ended and opened again; then what recovery makes of files that were cut, damaged,
// lost, exchanged or written by others.
#include "sink/journal/journal.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <thread>

#include "tests/sink/journal_fixture.h"

namespace kavach::sink {
namespace {

using test::Bytes;
using test::flip_bit;
using test::JournalFixture;
using test::numbers;
using test::open_journal;
using test::payload_number;
using test::Payloads;
using test::read_file;
using test::refusal;
using test::RunningJournal;
using test::SegmentBytes;
using test::write_file;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// --- writing -----------------------------------------------------------------------------------------------

TEST_CASE_FIXTURE(JournalFixture, "a new journal is empty, healthy and has an id of its own") {
  const auto journal = open_journal(options);
  CHECK(journal->durable_seq() == 0);
  CHECK(journal->released_seq() == 0);
  CHECK(journal->backlog_bytes() == 0);
  CHECK(journal->healthy());
  CHECK_FALSE(journal->saturated());
  CHECK_FALSE(journal->id().is_nil());
  const test::TempFolder other(kavach::test::memory());
  CHECK_FALSE(open_journal({.directory = other.path().string()})->id() == journal->id());
}

TEST_CASE_FIXTURE(JournalFixture,
                  "what was written is read back in order, before and after the journal is opened again") {
  Uuid id;
  {
    RunningJournal journal(options);
    id = journal->id();
    journal.write_numbers(1, 20);
    CHECK(journal->durable_seq() == 20);
    CHECK(read(20) == numbers(1, 20));
  }
  const auto journal = open_journal(options);
  CHECK(journal->id() == id);
  CHECK(journal->recovery().frames == 20);
  CHECK(journal->recovery().last_seq == 20);
  CHECK(journal->recovery().torn_bytes_cut == 0);
  CHECK(journal->durable_seq() == 20);
  CHECK(read(20) == numbers(1, 20));
}

TEST_CASE_FIXTURE(JournalFixture, "the numbers go on where they ended, however often the journal is opened") {
  for (std::uint64_t round = 0; round < 5; ++round) {
    RunningJournal journal(options);
    CHECK(journal->recovery().last_seq == round * 3);
    journal.write_numbers(round * 3 + 1, round * 3 + 3);
  }
  CHECK(read(15) == numbers(1, 15));
}

TEST_CASE_FIXTURE(JournalFixture, "frames of all shards that wait are one group commit") {
  RunningJournal journal(options, /*start_now=*/false);
  for (std::uint64_t n = 1; n <= 50; ++n)
    REQUIRE(journal.submit(payload_number(n), static_cast<std::uint32_t>(n % 2)) != nullptr);
  journal.start();
  journal.wait();
  CHECK(journal->metrics().groups.value() == 1);
  CHECK(journal->metrics().frames.value() == 50);
  CHECK(journal->metrics().events.value() == 50);
  CHECK(journal->durable_seq() == 50);
}

TEST_CASE_FIXTURE(JournalFixture,
                  "a group is bounded, so that the first frame does not wait for the last one's bytes") {
  options.group_bytes_max = 1000;
  RunningJournal journal(options, /*start_now=*/false);
  for (std::uint64_t n = 1; n <= 100; ++n) REQUIRE(journal.submit(payload_number(n, 368)) != nullptr);
  journal.start();
  journal.wait();
  // 400 bytes a frame: the third one passes the bound.
  CHECK(journal->metrics().groups.value() == 34);
}

TEST_CASE_FIXTURE(JournalFixture, "a shard's frames come back in the order in which it handed them over") {
  RunningJournal journal(options);
  std::vector<std::vector<Frame*>> submitted(options.shards);
  Random random(1);
  for (int round = 0; round < 50; ++round) {
    for (std::uint64_t n = random.next() % 20; n > 0; --n) {
      const auto shard = static_cast<std::uint32_t>(random.next() % options.shards);
      submitted[shard].push_back(journal.submit(payload_number(n), shard));
    }
    journal.wait();
  }
  for (std::uint32_t shard = 0; shard < options.shards; ++shard) {
    CHECK(journal.delivered(shard) == submitted[shard]);
    std::uint64_t last_seq = 0;
    for (const Frame* frame : journal.delivered(shard)) {
      CHECK(frame->receipt == Receipt::kJournal);
      CHECK(frame->seq > last_seq);
      last_seq = frame->seq;
    }
  }
}

TEST_CASE_FIXTURE(JournalFixture, "shards on threads of their own all get their receipts") {
  constexpr int kRounds = 200;
  options.shards = 4;
  const auto journal = open_journal(options);
  struct Lane {
    std::vector<Frame> frames{8};
    std::atomic<int> back{0};
  };
  std::vector<Lane> lanes(options.shards);
  journal->start([&](std::uint32_t shard, std::span<Frame* const> frames) {
    lanes[shard].back += static_cast<int>(frames.size());
    lanes[shard].back.notify_all();
  });
  std::vector<std::thread> shards;
  for (std::uint32_t shard = 0; shard < options.shards; ++shard) {
    shards.emplace_back([&, shard] {
      Lane& lane = lanes[shard];
      for (int round = 1; round <= kRounds; ++round) {
        for (Frame& frame : lane.frames) {
          frame.payload = payload_number(shard);
          frame.seal();
          CHECK(journal->submit(shard, &frame));
        }
        journal->flush(shard);
        const int expected = round * static_cast<int>(lane.frames.size());
        for (int back = lane.back; back != expected; back = lane.back) lane.back.wait(back);
        for (const Frame& frame : lane.frames) CHECK(frame.receipt == Receipt::kJournal);
      }
    });
  }
  for (std::thread& shard : shards) shard.join();
  CHECK(journal->durable_seq() == 4 * 8 * kRounds);
}

TEST_CASE_FIXTURE(JournalFixture, "a shard that always fills a group does not shut out another one") {
  options.group_bytes_max = 200;
  const auto journal = open_journal(options);
  std::vector<Frame> busy(8);
  Frame patient;
  std::atomic<bool> patient_is_back{false};
  // What comes back of shard 0 is handed over again at once: its lane is never empty.
  journal->start([&](std::uint32_t shard, std::span<Frame* const> frames) {
    if (shard == 1) {
      patient_is_back = true;
      patient_is_back.notify_all();
    } else if (!patient_is_back) {
      for (Frame* frame : frames) CHECK(journal->submit(0, frame));
    }
  });
  for (Frame& frame : busy) {
    frame.payload = payload_number(1, 200);
    frame.seal();
    CHECK(journal->submit(0, &frame));
  }
  patient.payload = payload_number(2);
  patient.seal();
  CHECK(journal->submit(1, &patient));
  journal->flush(0);
  patient_is_back.wait(false);
  journal->stop();
  CHECK(patient.receipt == Receipt::kJournal);
}

TEST_CASE_FIXTURE(JournalFixture, "a full segment is followed by the next one") {
  options.segment_bytes = 1000;
  RunningJournal journal(options);
  journal.write_numbers(1, 100);  // 80 bytes each
  CHECK(test::segment_paths(options.directory).size() == 10);
  CHECK(read(100) == numbers(1, 100));
}

TEST_CASE_FIXTURE(JournalFixture, "a frame larger than a segment gets one of its size") {
  options.segment_bytes = 1000;
  RunningJournal journal(options);
  CHECK(journal.write(payload_number(1)) == Receipt::kJournal);
  CHECK(journal.write(payload_number(2, 100'000)) == Receipt::kJournal);
  CHECK(journal.write(payload_number(3)) == Receipt::kJournal);
  const Payloads found = read(3);
  CHECK(found.at(2) == payload_number(2, 100'000));
  CHECK(found.size() == 3);
}

TEST_CASE_FIXTURE(JournalFixture, "an empty payload is a frame like any other") {
  RunningJournal journal(options);
  CHECK(journal.write({}) == Receipt::kJournal);
  CHECK(read(1) == Payloads{{1, {}}});
}

TEST_CASE_FIXTURE(JournalFixture,
                  "stop() delivers everything that was handed over, and later frames are refused") {
  RunningJournal journal(options);
  for (std::uint64_t n = 1; n <= 500; ++n)
    REQUIRE(journal.submit(payload_number(n), static_cast<std::uint32_t>(n % 2)) != nullptr);
  journal->stop();
  CHECK(journal.delivered(0).size() + journal.delivered(1).size() == 500);
  CHECK(journal->durable_seq() == 500);
  CHECK(journal.submit(payload_number(501)) == nullptr);
  journal->stop();  // again, harmless
}

TEST_CASE_FIXTURE(JournalFixture,
                  "a follower that waits wakes with the next durable frame, and by interrupt()") {
  RunningJournal journal(options);
  std::thread follower([&] {
    while (journal->durable_seq() < 1) journal->wait_beyond(0, 60 * kMicrosPerSecond);
  });
  journal.write_numbers(1, 1);
  follower.join();
  std::thread interrupted([&] { journal->wait_beyond(1, 600 * kMicrosPerSecond); });
  journal->interrupt();
  interrupted.join();
}

// --- bounds ------------------------------------------------------------------------------------------------

TEST_CASE_FIXTURE(JournalFixture,
                  "bytes in flight have a bound, and submit() takes frames again when they are back") {
  options.in_flight_bytes_max = 4000;
  RunningJournal journal(options, /*start_now=*/false);
  std::uint64_t taken = 0;
  while (journal.submit(payload_number(taken + 1, 368)) != nullptr) ++taken;
  CHECK(taken == 10);  // 400 bytes each
  CHECK(journal->saturated());
  CHECK(journal.submit(payload_number(1), 1) == nullptr);  // for all shards
  journal.start();
  journal.wait();
  CHECK_FALSE(journal->saturated());
  CHECK(journal.submit(payload_number(1)) != nullptr);
  journal.wait();
}

TEST_CASE_FIXTURE(JournalFixture,
                  "a shard cannot hand over more frames than its lane holds, however small they are") {
  RunningJournal journal(options, /*start_now=*/false);
  std::uint64_t taken = 0;
  while (taken < 100'000 && journal.submit({}) != nullptr) ++taken;
  CHECK(taken == 8192);
  CHECK(journal.submit({}, 1) != nullptr);
  journal.start();
  journal.wait();
  CHECK(journal->durable_seq() == taken + 1);
}

TEST_CASE_FIXTURE(JournalFixture,
                  "the backlog has a bound, and submit() takes frames again when it is released") {
  options.backlog_bytes_max = 200'000;
  RunningJournal journal(options);
  std::uint64_t written = 0;
  while (!journal->saturated()) {
    REQUIRE(journal.write(payload_number(++written, 968)) == Receipt::kJournal);
  }
  CHECK(written == 200);  // 1000 bytes each
  CHECK(journal->backlog_bytes() == 200'000);
  CHECK(journal.submit(payload_number(1)) == nullptr);
  CHECK(journal->healthy());

  // Half of it: counted in steps, so a little less may be seen.
  journal->release(100);
  CHECK(journal->released_seq() == 100);
  CHECK(journal->backlog_bytes() >= 100'000);
  CHECK(journal->backlog_bytes() <= 100'000 + (64 << 10) + 1000);
  CHECK_FALSE(journal->saturated());
  journal->release(written);
  CHECK(journal->backlog_bytes() == 0);
  journal->release(100);  // never back
  CHECK(journal->released_seq() == written);
  CHECK(journal.write(payload_number(1)) == Receipt::kJournal);
}

TEST_CASE_FIXTURE(JournalFixture,
                  "the backlog is known again after the journal is opened, and released as before") {
  { RunningJournal(options).write_numbers(1, 1000); }
  options.backlog_bytes_max = 80'000;  // 80 bytes each
  RunningJournal journal(options);
  CHECK(journal->backlog_bytes() == 80'000);
  CHECK(journal.submit(payload_number(1)) == nullptr);
  journal->release(1000);
  CHECK(journal->backlog_bytes() == 0);
  CHECK(journal.write(payload_number(1001)) == Receipt::kJournal);
}

// --- recycling ---------------------------------------------------------------------------------------------

TEST_CASE_FIXTURE(JournalFixture,
                  "released segments are written again, a few of them, and the others are gone") {
  options.segment_bytes = 1000;
  RunningJournal journal(options);
  journal.write_numbers(1, 100);
  const auto before = std::filesystem::hard_link_count(segment(1));
  CHECK(before == 1);
  journal->release(100);
  // The last one is being written.
  CHECK(test::segment_paths(options.directory).size() == 1);
  std::size_t spares = 0;
  for (const auto& entry : std::filesystem::directory_iterator(options.directory))
    spares += entry.path().extension() == ".spare" ? 1U : 0U;
  CHECK(spares == 2);
  journal.write_numbers(101, 130);
  CHECK(read(130, 100) == numbers(101, 130));
}

TEST_CASE_FIXTURE(JournalFixture, "a segment is kept until its last frame is released") {
  options.segment_bytes = 1000;  // 11 frames
  RunningJournal journal(options);
  journal.write_numbers(1, 30);
  journal->release(10);
  CHECK(read(30, 10) == numbers(11, 30));
  CHECK(std::filesystem::exists(segment(1)));
  journal->release(11);
  CHECK_FALSE(std::filesystem::exists(segment(1)));
  CHECK(read(30, 11) == numbers(12, 30));
}

TEST_CASE_FIXTURE(JournalFixture,
                  "old frames of recycled segments never come back, wherever the process ends") {
  options.segment_bytes = 1000;
  std::uint64_t written = 0;
  for (int round = 0; round < 30; ++round) {
    CAPTURE(round);
    RunningJournal journal(options);
    CHECK(journal->durable_seq() == written);
    const std::uint64_t released = written > 0 ? written - 1 : 0;
    journal->release(released);
    CHECK(read(written, released) == numbers(released + 1, written));
    journal.write_numbers(written + 1, written + 17);
    written += 17;
    CHECK(read(written, released) == numbers(released + 1, written));
    // Never the same distance to the end of a segment, and files that hold frames of three earlier uses.
    journal->release(written - 9);
    journal.write_numbers(written + 1, written + 14);
    written += 14;
  }
}

TEST_CASE_FIXTURE(JournalFixture, "spares of an earlier run are removed, and other people's files are not") {
  write_file(folder.file("00000000000000000001.kvj.spare"), Bytes(10));
  write_file(folder.file("notes.txt"), Bytes(10));
  open_journal(options);
  CHECK_FALSE(std::filesystem::exists(folder.file("00000000000000000001.kvj.spare")));
  CHECK(std::filesystem::exists(folder.file("notes.txt")));
}

TEST_CASE_FIXTURE(JournalFixture,
                  "when everything is released and the last segment is still empty, the numbers go on") {
  options.segment_bytes = 1000;
  { RunningJournal(options).write_numbers(1, 11); }  // exactly full
  // As if the process had ended between opening the second segment and writing into it.
  const auto id = [&] {
    const auto journal = open_journal(options);
    return journal->id();
  }();
  const SegmentBytes empty(2, 12, id);
  write_file(segment(2), empty.bytes);
  std::filesystem::remove(segment(1));
  {
    RunningJournal journal(options);
    CHECK(journal->id() == id);
    CHECK(journal->durable_seq() == 11);
    CHECK(journal->released_seq() == 11);
    journal.write_numbers(12, 12);
  }
  CHECK(read(12, 11) == numbers(12, 12));
}

// --- recovery ----------------------------------------------------------------------------------------------

// Frames 1 to 3 of three groups and 4 to 6 of one, in one file.
struct Crashed : JournalFixture {
  Crashed() {
    const auto put = [&](RunningJournal& journal, std::uint64_t n) {
      REQUIRE(journal.submit(payload_number(n)) != nullptr);
    };
    RunningJournal journal(options);
    for (std::uint64_t n = 1; n <= kAcknowledged; ++n) {
      put(journal, n);
      journal.wait();
    }
    for (std::uint64_t n = kAcknowledged + 1; n <= kLast; ++n) put(journal, n);
    journal.wait();
    REQUIRE(journal->metrics().groups.value() == kAcknowledged + 1);
    journal->stop();
    sound = read_file(segment(1));
    SegmentHeader header;
    std::uint32_t version = 0;
    REQUIRE(read_segment_header(sound, header, version) == HeaderState::kSound);
    scan_segment(sound, header, std::nullopt, false,
                 [&](const FrameHeader& frame, std::span<const std::uint8_t> payload, std::uint64_t offset) {
                   frames.push_back({frame.seq, offset, offset + kFrameHeaderBytes + payload.size(),
                                     offset + frame_file_bytes(payload.size())});
                 });
    REQUIRE(frames.size() == kLast);
  }

  // A directory that holds `bytes` as its only segment.
  void put_back(const Bytes& bytes) const {
    for (const std::string& path : test::segment_paths(options.directory)) std::filesystem::remove(path);
    write_file(segment(1), bytes);
  }
  JournalOptions skipping() const {
    JournalOptions changed = options;
    changed.on_corruption = CorruptionPolicy::kSkip;
    return changed;
  }

  static constexpr std::uint64_t kAcknowledged = 3;
  static constexpr std::uint64_t kLast = 6;
  Bytes sound;
  std::vector<SegmentBytes::Place> frames;
};

TEST_CASE_FIXTURE(Crashed,
                  "a file that is cut at any byte of its last group loses nothing that was acknowledged") {
  for (std::size_t size = frames[kAcknowledged].begin; size <= sound.size(); ++size) {
    CAPTURE(size);
    std::uint64_t whole = 0;
    for (const auto& frame : frames)
      if (frame.payload_end <= size) whole = frame.seq;
    put_back(Bytes(sound.begin(), sound.begin() + static_cast<std::ptrdiff_t>(size)));
    open_journal(options);
    {
      RunningJournal journal(options);
      CHECK(journal->recovery().torn_bytes_cut == 0);  // by the start before
      CHECK(journal->recovery().last_seq == whole);
      CHECK(journal->recovery().damaged_frames_skipped == 0);
      CHECK(read(whole) == numbers(1, whole));
      journal.write_numbers(whole + 1, whole + 2);
    }
    // The cut tail does not come back behind what was written since.
    CHECK(read(whole + 2) == numbers(1, whole + 2));
  }
}

TEST_CASE_FIXTURE(
    Crashed, "any bit of an acknowledged frame that flips is refused with its frame and offset, or skipped") {
  for (std::size_t i = 0; i < kAcknowledged; ++i) {
    const auto& frame = frames[i];
    const std::string told = segment(1) + ": acknowledged frame " + std::to_string(frame.seq) +
                             " is damaged at offset " + std::to_string(frame.begin);
    Payloads others = numbers(1, kLast);
    others.erase(frame.seq);
    for (std::size_t bit = frame.begin * 8; bit < frame.payload_end * 8; ++bit) {
      CAPTURE(bit);
      Bytes bytes = sound;
      flip_bit(bytes, bit);
      put_back(bytes);
      CHECK(contains(refusal(options), told));
      CHECK(read_file(segment(1)) == bytes);  // to be looked at, and restored
      if (bit % 16 != 0) continue;            // a sync each
      const auto journal = open_journal(skipping());
      CHECK(journal->recovery().damaged_frames_skipped == 1);
      CHECK(journal->recovery().last_seq == kLast);
      CHECK(test::read_journal(options.directory, kLast, 0, CorruptionPolicy::kSkip) == others);
    }
  }
}

// What the format cannot tell (sink/JOURNAL.md): a last group that was acknowledged and damaged afterwards.
// It is not silent either: the report counts the bytes.
TEST_CASE_FIXTURE(
    Crashed, "a bit of the last group that flips ends the journal there, and the report counts the bytes") {
  for (std::size_t i = kAcknowledged; i < kLast; ++i) {
    for (std::size_t bit = frames[i].begin * 8; bit < frames[i].payload_end * 8; bit += 7) {
      CAPTURE(bit);
      Bytes bytes = sound;
      flip_bit(bytes, bit);
      put_back(bytes);
      const auto journal = open_journal(options);
      CHECK(journal->recovery().last_seq == frames[i].seq - 1);
      CHECK(journal->recovery().torn_bytes_cut > 0);
    }
  }
}

TEST_CASE_FIXTURE(Crashed, "after one more start the last group is proven, and damage of it is found") {
  put_back(sound);
  { RunningJournal(options).write_numbers(kLast + 1, kLast + 1); }
  Bytes bytes = read_file(segment(1));
  flip_bit(bytes, (frames.back().begin + 40) * 8);
  write_file(segment(1), bytes);
  CHECK(contains(refusal(options), "acknowledged frame 6 is damaged at offset"));
}

TEST_CASE_FIXTURE(Crashed, "a last segment whose only group was torn still proves what stands before it") {
  put_back(sound);
  { RunningJournal(options).write_numbers(kLast + 1, kLast + 1); }
  Bytes torn = read_file(segment(2));
  torn.resize(kSegmentHeaderBytes + 40);
  write_file(segment(2), torn);
  CHECK(open_journal(options)->recovery().last_seq == kLast);
  Bytes bytes = sound;
  flip_bit(bytes, (frames.back().begin + 40) * 8);
  write_file(segment(1), bytes);
  CHECK(contains(refusal(options), "acknowledged frame 6 is damaged at offset"));
}

TEST_CASE_FIXTURE(JournalFixture,
                  "the frames behind a skipped one stay, also when what proved it is cut off as torn") {
  SegmentBytes one;
  one.add_group({45, 45});
  one.add_group({45, 45});  // says that 1 and 2 were synced; nothing says that of 3 and 4
  flip_bit(one.bytes, (one.frames[0].begin + 40) * 8);
  flip_bit(one.bytes, (one.frames[2].begin + 40) * 8);
  write_file(segment(1), one.bytes);
  options.on_corruption = CorruptionPolicy::kSkip;
  const Payloads expected{{2, payload_number(2)}};
  for (int start = 0; start < 3; ++start) {
    CAPTURE(start);
    CHECK(open_journal(options)->recovery().last_seq == 2);
    CHECK(test::read_journal(options.directory, 2, 0, CorruptionPolicy::kSkip) == expected);
  }
}

TEST_CASE_FIXTURE(Crashed, "a segment of a newer version is refused, also when damage is to be skipped") {
  Bytes bytes = sound;
  bytes[8] = kJournalVersion + 1;
  put_back(bytes);
  for (const JournalOptions& with : {options, skipping()}) {
    CHECK(contains(refusal(with), "has journal format 2, this kavachd reads up to 1"));
    CHECK(read_file(segment(1)) == bytes);
  }
}

TEST_CASE_FIXTURE(Crashed, "a last file that was made and never written is no damage") {
  const Bytes of_another_use = sound;  // recycled: its header names another segment
  for (const Bytes& bytes : {Bytes{}, Bytes(10), Bytes(4096), of_another_use}) {
    put_back(sound);
    write_file(segment(2), bytes);
    {
      RunningJournal journal(options);
      CHECK(journal->recovery().last_seq == kLast);
      journal.write_numbers(kLast + 1, kLast + 1);
    }
    CHECK(read(kLast + 1) == numbers(1, kLast + 1));
  }
}

TEST_CASE_FIXTURE(Crashed, "a header that was lost is damage, in whatever file, and can be skipped") {
  put_back(sound);
  { RunningJournal(options).write_numbers(kLast + 1, kLast + 2); }
  const Bytes second = read_file(segment(2));
  for (const std::uint64_t id : {1U, 2U}) {
    CAPTURE(id);
    for (const std::size_t byte : {0U, 20U, 35U, 45U, 61U}) {
      CAPTURE(byte);
      put_back(sound);
      write_file(segment(2), second);
      Bytes bytes = read_file(segment(id));
      flip_bit(bytes, byte * 8);
      write_file(segment(id), bytes);
      CHECK(contains(refusal(options), segment(id) + ": the header is damaged at offset 0"));
      const std::string none;
      CHECK(refusal(skipping()) == none);
    }
  }
}

TEST_CASE_FIXTURE(JournalFixture,
                  "a missing segment in the middle is refused with both numbers, or skipped") {
  options.segment_bytes = 1000;
  { RunningJournal(options).write_numbers(1, 40); }  // 11 frames in each
  std::filesystem::remove(segment(2));
  const std::string told = refusal(options);
  CHECK(contains(told, segment(1) + ": acknowledged frame 12 is damaged at offset 944"));
  CHECK(contains(told, "no segment is between it and " + segment(3)));
  options.on_corruption = CorruptionPolicy::kSkip;
  const auto journal = open_journal(options);
  CHECK(journal->recovery().damaged_frames_skipped == 11);
  CHECK(journal->durable_seq() == 40);
  Payloads expected = numbers(1, 40);
  for (std::uint64_t seq = 12; seq <= 22; ++seq) expected.erase(seq);
  CHECK(test::read_journal(options.directory, 40, 0, CorruptionPolicy::kSkip) == expected);
}

TEST_CASE_FIXTURE(JournalFixture,
                  "a segment of another journal is refused, also when damage is to be skipped") {
  { RunningJournal(options).write_numbers(1, 5); }
  SegmentBytes foreign(2, 6);
  foreign.add_group({45});
  write_file(segment(2), foreign.bytes);
  CHECK(contains(refusal(options), segment(2) + " belongs to another journal"));
  options.on_corruption = CorruptionPolicy::kSkip;
  CHECK(contains(refusal(options), segment(2) + " belongs to another journal"));
}

TEST_CASE_FIXTURE(JournalFixture, "a directory that is in use is refused until its user has gone") {
  auto first = open_journal(options);
  CHECK(contains(refusal(options), "is in use by another kavachd"));
  first.reset();
  CHECK(refusal(options).empty());
}

TEST_CASE_FIXTURE(JournalFixture, "a directory that cannot be made is refused") {
  write_file(folder.file("file"), {});
  options.directory = folder.file("file") + "/journal";
  CHECK(contains(refusal(options), "journal.directory: cannot create"));
}

// --- inspect -----------------------------------------------------------------------------------------------

TEST_CASE_FIXTURE(Crashed, "inspection tells what recovery would, and changes nothing") {
  put_back(sound);
  { RunningJournal(options).write_numbers(kLast + 1, kLast + 2); }
  Bytes damaged = sound;
  flip_bit(damaged, (frames[1].begin + 40) * 8);
  write_file(segment(1), damaged);
  Bytes torn = read_file(segment(2));
  torn.resize(torn.size() - 20);
  write_file(segment(2), torn);
  write_file(segment(3), Bytes(4096));

  const auto found = inspect_journal(options.directory);
  REQUIRE(found.has_value());
  REQUIRE(found->segments.size() == 3);
  const auto& [first, second, third] = std::tie(found->segments[0], found->segments[1], found->segments[2]);
  CHECK(first.file == segment(1));
  CHECK(first.first_seq == 1);
  CHECK(first.last_seq == kLast);
  CHECK(first.frames == kLast - 1);
  CHECK(first.problem ==
        "acknowledged frame 2 is damaged at offset " + std::to_string(frames[1].begin) + ", 1 frames lost");
  CHECK(second.problem.empty());
  CHECK(second.frames == 1);
  CHECK(second.torn_bytes > 0);
  CHECK(third.problem.empty());  // made and never written
  CHECK(third.frames == 0);
  CHECK(read_file(segment(1)) == damaged);
  CHECK(read_file(segment(2)) == torn);
  CHECK(std::filesystem::exists(segment(3)));
}

}  // namespace
}  // namespace kavach::sink
