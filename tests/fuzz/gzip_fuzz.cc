// Inflater against zlib: the same content, or both refuse; whatever the bytes claim, the bound holds.
//
// The input is tried as it is, and as the DEFLATE data of a member whose header and trailer are right: a
// fuzzer does not guess checksums.
#include <zlib.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/check.h"
#include "engine/padded_buffer.h"
#include "http/ingest/inflate.h"

namespace kavach::http {
namespace {

constexpr std::string_view kPlainHeader("\x1f\x8b\x08\0\0\0\0\0\0\xff", 10);
// More than this is not compared: zlib would take most of the time.
constexpr std::size_t kContentBytesMax = std::size_t{1} << 20;

enum class Outcome { kContent, kCorrupt, kTooLarge };

std::uint32_t little_endian(std::string_view bytes) {
  std::uint32_t value = 0;
  for (std::size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

std::string four_bytes(std::size_t value) {
  std::string bytes;
  for (int i = 0; i < 4; ++i, value >>= 8) bytes += static_cast<char>(value & 0xff);
  return bytes;
}

// Takes DEFLATE data off the front of `rest` and appends its content, at most `bytes_max` bytes in all.
Outcome reference_deflate(std::string_view& rest, std::size_t bytes_max, std::string& content) {
  z_stream stream{};
  KAVACH_CHECK(inflateInit2(&stream, -MAX_WBITS) == Z_OK, "no zlib");
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(rest.data()));
  stream.avail_in = static_cast<uInt>(rest.size());
  int state = Z_OK;
  while (state == Z_OK && content.size() <= bytes_max) {
    char block[16 << 10];
    stream.next_out = reinterpret_cast<Bytef*>(block);
    stream.avail_out = sizeof(block);
    state = inflate(&stream, Z_NO_FLUSH);
    content.append(block, sizeof(block) - stream.avail_out);
  }
  rest.remove_prefix(rest.size() - stream.avail_in);
  inflateEnd(&stream);
  if (content.size() > bytes_max) return Outcome::kTooLarge;
  return state == Z_STREAM_END ? Outcome::kContent : Outcome::kCorrupt;
}

// RFC 1952 2.3, but for the header's own checksum, which nobody checks.
bool take_header(std::string_view& rest) {
  constexpr int kHeaderCrc = 1 << 1;
  constexpr int kExtra = 1 << 2;
  constexpr int kName = 1 << 3;
  constexpr int kComment = 1 << 4;
  constexpr int kReserved = 0xe0;
  if (rest.size() < 10 || !rest.starts_with("\x1f\x8b\x08")) return false;
  const int flags = static_cast<unsigned char>(rest[3]);
  rest.remove_prefix(10);
  if ((flags & kReserved) != 0) return false;
  if ((flags & kExtra) != 0) {
    if (rest.size() < 2) return false;
    const std::size_t size = little_endian(rest.substr(0, 2));
    if (rest.size() < 2 + size) return false;
    rest.remove_prefix(2 + size);
  }
  for (const int text : {kName, kComment}) {
    if ((flags & text) == 0) continue;
    const std::size_t end = rest.find('\0');
    if (end == std::string_view::npos) return false;
    rest.remove_prefix(end + 1);
  }
  if ((flags & kHeaderCrc) != 0) {
    if (rest.size() < 2) return false;
    rest.remove_prefix(2);
  }
  return true;
}

Outcome reference_gzip(std::string_view rest, std::size_t bytes_max, std::string& content) {
  do {
    const std::size_t start = content.size();
    if (!take_header(rest)) return Outcome::kCorrupt;
    const Outcome outcome = reference_deflate(rest, bytes_max, content);
    if (outcome != Outcome::kContent) return outcome;
    const std::string_view member = std::string_view(content).substr(start);
    const auto crc =
        crc32(0, reinterpret_cast<const Bytef*>(member.data()), static_cast<uInt>(member.size()));
    if (rest.size() < 8 || little_endian(rest.substr(0, 4)) != crc ||
        little_endian(rest.substr(4, 4)) != member.size())
      return Outcome::kCorrupt;
    rest.remove_prefix(8);
  } while (rest.find_first_not_of('\0') != std::string_view::npos);
  return Outcome::kContent;
}

void compare(std::string_view gzip, std::size_t bytes_max) {
  static Inflater inflater;
  PaddedBuffer out;
  InflateError error{};
  const bool taken = inflater.inflate(gzip, bytes_max, out, error);
  KAVACH_CHECK(out.size() <= bytes_max, "content beyond the bound");
  KAVACH_CHECK(out.capacity() <= bytes_max, "memory beyond the bound");

  std::string content;
  const Outcome expected = reference_gzip(gzip, bytes_max, content);
  // What is refused may be called too large by one and corrupt by the other: a block may say that it is long
  // and end early.
  KAVACH_CHECK(taken == (expected == Outcome::kContent), "one takes it, the other refuses it");
  if (taken) KAVACH_CHECK(out.view() == content, "another content than zlib's");
}

}  // namespace
}  // namespace kavach::http

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace kavach::http;
  const std::string_view input(reinterpret_cast<const char*>(bytes), size);
  compare(input, kContentBytesMax);

  std::string content;
  std::string_view rest = input;
  if (reference_deflate(rest, kContentBytesMax, content) != Outcome::kContent) return 0;
  const auto crc =
      crc32(0, reinterpret_cast<const Bytef*>(content.data()), static_cast<uInt>(content.size()));
  const std::string member = std::string(kPlainHeader) +
                             std::string(input.substr(0, input.size() - rest.size())) + four_bytes(crc) +
                             four_bytes(content.size());
  compare(member, kContentBytesMax);
  // At the bound, and one byte below it; what stands behind the member is another one, padding, or neither.
  compare(member, content.size());
  if (!content.empty()) compare(member, content.size() - 1);
  compare(member + std::string(rest), kContentBytesMax);
  compare(member + member, 2 * content.size());
  return 0;
}
