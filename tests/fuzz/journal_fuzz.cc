// Journal: recovery, reader and inspection of damaged directories, and the decoder of payloads.
//
// The first byte chooses. A payload of any bytes must decode or be refused. Segments of any frames whose
// checksums are right must be read by all in the same way. And a sound journal that is damaged afterwards
// (bits flipped, ranges erased, files cut short or removed: what disks do, not what a forger does) must give
// back exactly the frames that a model on whole frames says.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/check.h"
#include "engine/crc32c.h"
#include "engine/log.h"
#include "sink/journal/frame.h"
#include "sink/journal/journal.h"
#include "sink/journal/segment.h"
#include "tests/fuzz/input.h"

namespace kavach::sink {
namespace {

using fuzz::Input;
using Bytes = std::vector<std::uint8_t>;

// --- payloads ----------------------------------------------------------------------------------------------

bool lies_within(std::string_view view, std::string_view bytes) {
  return view.empty() ||
         (view.data() >= bytes.data() && view.data() + view.size() <= bytes.data() + bytes.size());
}

void check_payload(std::span<const std::uint8_t> bytes) {
  // A copy of the exact size: the sanitizer sees every byte too far.
  const Bytes payload(bytes.begin(), bytes.end());
  Batch batch;
  std::string arena;
  if (!decode_batch(payload, batch, arena)) return;
  KAVACH_CHECK(!batch.events.empty(), "a frame without events was taken");
  const std::string_view text(reinterpret_cast<const char*>(payload.data()), payload.size());
  for (const Event& event : batch.events) {
    for (const std::string_view view :
         {event.agent_name, event.provider, event.model, event.idempotency_key, event.run_id, event.prompt}) {
      KAVACH_CHECK(lies_within(view, text) || lies_within(view, arena), "a view into nothing");
    }
    KAVACH_CHECK(std::min({event.input_tokens, event.output_tokens, event.duration_ms, event.cost}) >= 0,
                 "a negative number");
  }
  // What was decoded is encoded in one way only, however it was written here.
  Bytes encoded;
  encode_batch(batch, {}, encoded);
  Batch again;
  std::string arena_again;
  KAVACH_CHECK(decode_batch(encoded, again, arena_again).has_value(), "what was encoded is refused");
  Bytes encoded_again;
  encode_batch(again, {}, encoded_again);
  KAVACH_CHECK(encoded == encoded_again, "encoded twice, it differs");
}

// --- directories -------------------------------------------------------------------------------------------

const Uuid kJournalId{{1, 2, 3, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 16}};

// A folder of this process, in memory where there is such a thing: a sync costs nothing there.
const std::string& directory() {
  static const std::string path = [] {
    const char* const memory = "/dev/shm";
    const std::string base =
        std::filesystem::exists(memory) ? memory : std::filesystem::temp_directory_path();
    return base + "/kavach-journal-fuzz-" + std::to_string(::getpid());
  }();
  return path;
}

// Damage is what this is about, so that nobody wants to read of it; the folder goes when the process ends.
struct Session {
  Session() { log::set_level(log::Level::kOff); }
  ~Session() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  const std::string path = directory();
};

struct File {
  std::uint64_t id = 0;
  Bytes bytes;
};

void write_files(const std::vector<File>& files) {
  std::filesystem::create_directories(directory());
  for (const auto& entry : std::filesystem::directory_iterator(directory()))
    std::filesystem::remove(entry.path());
  for (const File& file : files) {
    std::ofstream(segment_path(directory(), file.id), std::ios::binary)
        .write(reinterpret_cast<const char*>(file.bytes.data()),
               static_cast<std::streamsize>(file.bytes.size()));
  }
}

// The segments' bytes by path.
std::map<std::string, std::string> read_files() {
  std::map<std::string, std::string> files;
  const auto found = list_segments(directory());
  for (const SegmentFile& file : *found) {
    std::ifstream in(file.path, std::ios::binary);
    files[file.path].assign(std::istreambuf_iterator<char>(in), {});
  }
  return files;
}

JournalOptions options(CorruptionPolicy policy) {
  return {.directory = directory(), .segment_bytes = 8 << 10, .on_corruption = policy};
}

using Payloads = std::map<std::uint64_t, Bytes>;

// Everything from behind `after` to `up_to`; nullopt when the reader stops at damage.
std::optional<Payloads> read_all(std::uint64_t after, std::uint64_t up_to, CorruptionPolicy policy) {
  auto reader = JournalReader::open(directory(), after, policy);
  KAVACH_CHECK(reader.has_value(), "no reader");
  Payloads found;
  std::uint64_t last = after;
  for (;;) {
    const auto entry = (*reader)->next(up_to);
    if (!entry) return std::nullopt;
    if (!entry->has_value()) return found;
    const auto& [seq, payload] = **entry;
    KAVACH_CHECK(seq > last && seq <= up_to, "a frame out of order, or not asked for");
    last = seq;
    found.emplace(seq, Bytes(payload.begin(), payload.end()));
  }
}

void append_frame(Bytes& segment, const SegmentHeader& header, const FrameHeader& frame,
                  std::span<const std::uint8_t> payload) {
  const std::size_t at = segment.size();
  segment.resize(at + frame_file_bytes(payload.size()));
  write_frame_header(frame, frame_salt(header), segment.data() + at);
  std::copy(payload.begin(), payload.end(),
            segment.begin() + static_cast<std::ptrdiff_t>(at + kFrameHeaderBytes));
}

Bytes segment_of(const SegmentHeader& header) {
  Bytes bytes(kSegmentHeaderBytes);
  write_segment_header(header, bytes.data());
  return bytes;
}

// --- segments of any frames --------------------------------------------------------------------------------

// Frames with right checksums and any numbers in them, junk between. No writer makes such files and no damage
// does, so that there is no right answer; but recovery, reader and inspection must agree.
void check_any_frames(Input& in) {
  // Far from wrapping, which 2^62 frames would take.
  const auto any_seq = [&in] {
    return 1 + (in.byte() % 4 == 0 ? std::uint64_t{in.byte()} << 40 : in.byte() % 8);
  };
  std::vector<File> files;
  for (std::uint64_t id = 1; id <= 3 && (id == 1 || !in.at_end()); ++id) {
    const SegmentHeader header{kJournalId, in.byte() % 8 == 7 ? 9 : id, any_seq()};
    Bytes bytes = segment_of(header);
    for (std::uint32_t i = in.below(6); i > 0; --i) {
      const auto payload = in.take(in.below(40));
      FrameHeader frame{static_cast<std::uint32_t>(payload.size()), any_seq(), any_seq(),
                        crc32c(0, payload.data(), payload.size())};
      if (in.byte() % 8 == 7) frame.payload_bytes = in.byte() % 2 == 0 ? 0xffff'ffff : in.byte();
      append_frame(bytes, header, frame, payload);
      const auto junk = in.take(in.byte() % 4 == 3 ? in.below(48) : 0);
      bytes.insert(bytes.end(), junk.begin(), junk.end());
    }
    files.push_back({id, std::move(bytes)});
  }
  write_files(files);
  KAVACH_CHECK(inspect_journal(directory()).has_value(), "inspection failed");
  for (const CorruptionPolicy policy : {CorruptionPolicy::kStop, CorruptionPolicy::kSkip}) {
    RecoveryReport report;
    {
      const auto journal = Journal::open(options(policy));
      if (!journal) continue;
      report = (*journal)->recovery();
      KAVACH_CHECK((*journal)->backlog_bytes() < 1 << 20, "a backlog of more than there is");
    }
    if (report.frames == 0) continue;  // and maybe no segment either
    if (policy == CorruptionPolicy::kStop) {
      const auto read = read_all(0, report.last_seq, policy);
      KAVACH_CHECK(read.has_value() && read->size() == report.frames, "recovery and reader differ");
    } else {
      KAVACH_CHECK(read_all(0, report.last_seq, policy).has_value(), "a reader that skips has stopped");
    }
  }
}

// --- a sound journal, damaged ------------------------------------------------------------------------------

struct ModelFrame {
  std::uint64_t seq = 0;
  std::uint64_t synced_seq = 0;
  std::size_t begin = 0;  // offsets in the file
  std::size_t end = 0;    // without the padding
  Bytes payload;
};

struct ModelSegment {
  SegmentHeader header;
  Bytes sound;  // as it was written
  std::vector<ModelFrame> frames;
};

// A journal as it is written: groups of frames, each group knowing what was synced before it; behind the last
// frame zeros (a file is allocated whole) or what an earlier use of the file left.
std::vector<ModelSegment> write_sound(Input& in) {
  std::vector<ModelSegment> segments;
  std::uint64_t seq = 1 + in.byte() % 4;  // what was before has been released
  const std::uint32_t count = 1 + in.below(3);
  for (std::uint32_t i = 0; i < count; ++i) {
    ModelSegment segment;
    segment.header = {kJournalId, 1 + i, seq};
    segment.sound = segment_of(segment.header);
    for (std::uint32_t group = 1 + in.below(3); group > 0; --group) {
      const std::uint64_t synced = seq - 1;
      for (std::uint32_t frames = 1 + in.below(3); frames > 0; --frames, ++seq) {
        ModelFrame frame;
        frame.seq = seq;
        frame.synced_seq = synced;
        frame.begin = segment.sound.size();
        frame.payload.resize(in.below(70), static_cast<std::uint8_t>(seq));
        frame.end = frame.begin + kFrameHeaderBytes + frame.payload.size();
        append_frame(segment.sound, segment.header,
                     {static_cast<std::uint32_t>(frame.payload.size()), seq, synced,
                      crc32c(0, frame.payload.data(), frame.payload.size())},
                     frame.payload);
        segment.frames.push_back(std::move(frame));
      }
    }
    switch (in.byte() % 3) {
      case 0:
        break;
      case 1:
        segment.sound.resize(segment.sound.size() + 8 * in.below(16));
        break;
      default: {
        // Frames that look right, but for the salt of the segment that the file was before.
        const SegmentHeader earlier{kJournalId, 100, 1};
        for (std::uint64_t old = seq; old < seq + 3; ++old)
          append_frame(segment.sound, earlier, {0, old, old, 0}, {});
      }
    }
    segments.push_back(std::move(segment));
  }
  return segments;
}

void damage(Input& in, std::vector<File>& files) {
  for (std::uint32_t i = in.below(5); i > 0 && !files.empty(); --i) {
    const std::uint32_t index = in.below(static_cast<std::uint32_t>(files.size()));
    Bytes& bytes = files[index].bytes;
    const std::uint32_t kind = in.byte();
    if (bytes.empty()) continue;
    const std::size_t at = in.below(static_cast<std::uint32_t>(bytes.size()));
    const std::size_t size = std::min<std::size_t>(1 + in.below(64), bytes.size() - at);
    switch (kind % 8) {
      case 0:
        bytes.resize(at);
        break;
      case 1:
        files.erase(files.begin() + index);
        break;
      case 2:
      case 3:
        std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), size, std::uint8_t{0});
        break;
      case 4:
        std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), size, std::uint8_t{0xff});
        break;
      default:
        bytes[at] ^= static_cast<std::uint8_t>(1 << (kind >> 5));
    }
  }
}

bool same_bytes(const Bytes& sound, const Bytes& now, std::size_t begin, std::size_t end) {
  return now.size() >= end && std::equal(sound.begin() + static_cast<std::ptrdiff_t>(begin),
                                         sound.begin() + static_cast<std::ptrdiff_t>(end),
                                         now.begin() + static_cast<std::ptrdiff_t>(begin));
}

// What recovery should find, decided on whole frames.
struct Expected {
  bool stops = false;         // with on_corruption = "stop"
  bool stops_always = false;  // a version that we do not know
  std::uint64_t last_seq = 0;
  Payloads frames;  // with "skip"
};

Expected expect(const std::vector<ModelSegment>& segments, const std::vector<File>& files) {
  struct Left {
    const ModelSegment* model;
    const Bytes* bytes;
  };
  Expected expected;
  std::vector<Left> readable;
  for (const File& file : files) {
    const ModelSegment& model = segments[file.id - 1];
    if (same_bytes(model.sound, file.bytes, 0, kSegmentHeaderBytes)) {
      readable.push_back({&model, &file.bytes});
      continue;
    }
    const bool has_magic =
        same_bytes(model.sound, file.bytes, 0, 8) && file.bytes.size() >= kSegmentHeaderBytes;
    if (has_magic) {
      std::uint32_t version = 0;
      std::memcpy(&version, file.bytes.data() + 8, sizeof(version));
      if (version > kJournalVersion) expected.stops = expected.stops_always = true;
    }
    // The last file may have been created and never written. All others have been.
    const bool never_written = &file == &files.back() && std::all_of(file.bytes.begin(), file.bytes.end(),
                                                                     [](auto b) { return b == 0; });
    if (!never_written) expected.stops = true;
  }
  std::uint64_t next = 0;
  for (std::size_t i = 0; i < readable.size(); ++i) {
    const auto& [model, bytes] = readable[i];
    const bool last = i + 1 == readable.size();
    if (i > 0 && model->header.first_seq != next) expected.stops = true;
    next = model->header.first_seq;
    const auto intact = [&, sound = &model->sound, now = bytes](const ModelFrame& frame) {
      return same_bytes(*sound, *now, frame.begin, frame.end);
    };
    for (auto frame = model->frames.begin(); frame != model->frames.end(); ++frame) {
      if (intact(*frame)) {
        expected.frames[frame->seq] = frame->payload;
        next = frame->seq + 1;
        continue;
      }
      const bool proven = !last || std::any_of(frame + 1, model->frames.end(), [&](const ModelFrame& later) {
        return later.synced_seq >= frame->seq && intact(later);
      });
      // Frames of a group that was never synced are gone together, from the first one on.
      if (!proven && next == frame->seq) break;
      expected.stops = true;
    }
    // Up to the next segment everything was acknowledged.
    if (!last) {
      const std::uint64_t end = readable[i + 1].model->header.first_seq;
      if (next != end) expected.stops = true;
      next = end;
    }
  }
  expected.last_seq = readable.empty() ? 0 : next - 1;
  return expected;
}

void check_frames(const Payloads& expected, std::uint64_t last_seq, CorruptionPolicy policy) {
  if (expected.empty()) return;  // and maybe no segment either
  const auto read = read_all(0, last_seq, policy);
  KAVACH_CHECK(read.has_value(), "the reader stops where recovery did not");
  KAVACH_CHECK(*read == expected, "the reader gives other frames than were written");
  // From the middle on: what a follower does after a restart.
  const std::uint64_t middle =
      std::next(expected.begin(), static_cast<std::ptrdiff_t>(expected.size() / 2))->first;
  const auto rest = read_all(middle, last_seq, policy);
  KAVACH_CHECK(rest.has_value(), "the reader stops behind a remembered position");
  KAVACH_CHECK(*rest == Payloads(expected.upper_bound(middle), expected.end()), "a position was not kept");
}

// Adds a frame as a running node does.
void write_one(Journal& journal, const Bytes& payload) {
  std::atomic<bool> durable{false};
  journal.start([&](std::uint32_t, std::span<Frame* const> frames) {
    durable = frames.size() == 1 && frames[0]->receipt == Receipt::kJournal;
  });
  Frame frame;
  frame.payload = payload;
  frame.seal();
  KAVACH_CHECK(journal.submit(0, &frame), "an idle journal is full");
  journal.flush(0);
  journal.stop();
  KAVACH_CHECK(durable, "an idle journal did not write");
}

void check_damaged(Input& in) {
  const bool goes_on = in.byte() % 16 == 0;
  const std::vector<ModelSegment> segments = write_sound(in);
  std::vector<File> files;
  for (const ModelSegment& segment : segments) files.push_back({segment.header.segment_id, segment.sound});
  damage(in, files);
  write_files(files);
  const Expected expected = expect(segments, files);
  const auto before = read_files();
  KAVACH_CHECK(inspect_journal(directory()).has_value(), "inspection failed");
  KAVACH_CHECK(read_files() == before, "inspection changed something");

  bool is_sound = false;
  {
    const auto journal = Journal::open(options(CorruptionPolicy::kStop));
    is_sound = journal.has_value();
    KAVACH_CHECK(is_sound == !expected.stops, "damage was overlooked, or seen where there is none");
    if (!is_sound) KAVACH_CHECK(read_files() == before, "a refused journal was changed");
  }
  if (is_sound) check_frames(expected.frames, expected.last_seq, CorruptionPolicy::kStop);
  write_files(files);
  {
    const auto journal = Journal::open(options(CorruptionPolicy::kSkip));
    KAVACH_CHECK(journal.has_value() == !expected.stops_always, "skipping, it does not start");
    if (!journal) return;
    const RecoveryReport& report = (*journal)->recovery();
    KAVACH_CHECK(report.frames == expected.frames.size(), "more or fewer frames than are intact");
    KAVACH_CHECK(report.last_seq == expected.last_seq, "another end");
    check_frames(expected.frames, expected.last_seq, CorruptionPolicy::kSkip);
    if (goes_on) write_one(**journal, {'m', 'o', 'r', 'e'});
  }
  const CorruptionPolicy policy = is_sound ? CorruptionPolicy::kStop : CorruptionPolicy::kSkip;
  const auto journal = Journal::open(options(policy));
  KAVACH_CHECK(journal.has_value(), "started once, it does not start again");
  Payloads now = expected.frames;
  if (goes_on) now[expected.last_seq + 1] = {'m', 'o', 'r', 'e'};
  const RecoveryReport& again = (*journal)->recovery();
  KAVACH_CHECK(again.frames == now.size(), "started again, it has other frames");
  KAVACH_CHECK(again.last_seq == expected.last_seq + (goes_on ? 1 : 0), "started again, it ends elsewhere");
  KAVACH_CHECK(again.torn_bytes_cut == 0, "what was cut is there again");
  check_frames(now, again.last_seq, policy);
}

void check(Input in) {
  static const Session session;
  switch (in.byte() % 4) {
    case 0:
      return check_payload(in.rest());
    case 1:
      return check_any_frames(in);
    default:
      return check_damaged(in);
  }
}

}  // namespace
}  // namespace kavach::sink

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  kavach::sink::check(kavach::fuzz::Input({bytes, size}));
  return 0;
}
