// Inflate: whatever a gzip body claims, its content comes out whole, or it is refused within bounded memory.
#include "http/ingest/inflate.h"

#include "engine/ids.h"

#include <doctest/doctest.h>
#include <libdeflate.h>

#include <string>
#include <vector>

namespace kavach::http {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kBytesMax = 10 * kMiB;

std::string gzipped(std::string_view content) {
  libdeflate_compressor* const compressor = libdeflate_alloc_compressor(6);
  std::string out(libdeflate_gzip_compress_bound(compressor, content.size()), '\0');
  out.resize(libdeflate_gzip_compress(compressor, content.data(), content.size(), out.data(), out.size()));
  libdeflate_free_compressor(compressor);
  return out;
}

std::string random_bytes(std::size_t size) {
  Random random(1);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random.next());
  return bytes;
}

class InflaterFixture {
 public:
  PaddedBuffer out;

  // The content; or "corrupt", "too large".
  std::string inflated(std::string_view gzip, std::size_t bytes_max = kBytesMax) {
    // An exact fit, so that a sanitizer sees a read beyond the body.
    const std::vector<char> exact(gzip.begin(), gzip.end());
    InflateError error{};
    const bool whole = inflater_.inflate({exact.data(), exact.size()}, bytes_max, out, error);
    CHECK(out.capacity() <= bytes_max);
    if (whole) return std::string(out.view());
    return error == InflateError::kTooLarge ? "too large" : "corrupt";
  }

 private:
  Inflater inflater_;
};

TEST_CASE_FIXTURE(InflaterFixture, "content of every kind and size comes out as it went in") {
  for (const std::size_t size : {0U, 1U, 100U, 4095U, 4096U, 4097U, 100'000U, 3'000'000U}) {
    CHECK(inflated(gzipped(std::string(size, 'a'))) == std::string(size, 'a'));
    const std::string noise = random_bytes(size);
    CHECK(inflated(gzipped(noise)) == noise);
  }
}

TEST_CASE_FIXTURE(InflaterFixture, "no byte at all is no gzip") {
  CHECK(inflated("") == "corrupt");
  CHECK(inflated(std::string(100, '\0')) == "corrupt");
  CHECK(inflated(R"({"events":[]})") == "corrupt");
}

TEST_CASE_FIXTURE(InflaterFixture, "a body cut off anywhere is corrupt") {
  const std::string gzip = gzipped("the quick brown fox jumps over the lazy dog, " + random_bytes(200));
  for (std::size_t size = 0; size < gzip.size(); ++size) CHECK(inflated(gzip.substr(0, size)) == "corrupt");
}

TEST_CASE_FIXTURE(InflaterFixture, "a flipped bit is corrupt unless it says nothing about the content") {
  const std::string content = "the quick brown fox jumps over the lazy dog, " + random_bytes(50);
  const std::string gzip = gzipped(content);
  std::size_t unnoticed = 0;
  for (std::size_t bit = 0; bit < gzip.size() * 8; ++bit) {
    CAPTURE(bit);
    std::string flipped = gzip;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    const std::string found = inflated(flipped);
    if (found == content) ++unnoticed;
    CHECK((found == content || found == "corrupt"));
  }
  // The flag FTEXT, the 48 bits of MTIME, XFL and OS (RFC 1952), and what fills the last byte of the blocks.
  CHECK(unnoticed >= 49);
  CHECK(unnoticed < 49 + 8);
}

TEST_CASE_FIXTURE(InflaterFixture, "several members are one content, also empty ones, also of growing size") {
  CHECK(inflated(gzipped("abc") + gzipped("") + gzipped("def")) == "abcdef");
  std::string gzip;
  std::string content;
  for (std::size_t size = 1; size < kMiB; size *= 3) {
    content += random_bytes(size);
    gzip += gzipped(random_bytes(size));
  }
  CHECK(inflated(gzip) == content);
  CHECK(inflated(gzipped("abc") + gzipped("def").substr(0, 15)) == "corrupt");
}

TEST_CASE_FIXTURE(InflaterFixture, "behind the last member only zeros may follow") {
  CHECK(inflated(gzipped("abc") + std::string(1000, '\0')) == "abc");
  CHECK(inflated(gzipped("abc") + "x") == "corrupt");
  CHECK(inflated(gzipped("abc") + std::string(10, '\0') + "x") == "corrupt");
  CHECK(inflated(gzipped("abc") + "\x1f\x8b") == "corrupt");
  CHECK(inflated(gzipped("abc") + std::string(1, '\0') + gzipped("def")) == "corrupt");
}

TEST_CASE_FIXTURE(InflaterFixture, "content up to the bound is taken, one byte more is not") {
  for (const std::size_t bound : {std::size_t{1}, std::size_t{1000}, std::size_t{5000}, kMiB}) {
    CAPTURE(bound);
    CHECK(inflated(gzipped(random_bytes(bound)), bound).size() == bound);
    CHECK(inflated(gzipped(random_bytes(bound + 1)), bound) == "too large");
    CHECK(inflated(gzipped(random_bytes(bound)) + gzipped("x"), bound) == "too large");
    CHECK(inflated(gzipped(random_bytes(bound)) + gzipped(""), bound).size() == bound);
  }
}

TEST_CASE_FIXTURE(InflaterFixture, "a claim about the size costs no memory") {
  std::string gzip = gzipped("abc");
  gzip.replace(gzip.size() - 4, 4, "\xff\xff\xff\xff");
  CHECK(inflated(gzip) == "corrupt");
  CHECK(out.capacity() <= 1032 * gzip.size());
  // A claim that is too low only costs time.
  std::string low = gzipped(std::string(kMiB, 'a')) + gzipped("x");
  CHECK(inflated(low).size() == kMiB + 1);
}

// Writes DEFLATE's fixed code (RFC 1951 3.2.6) into bytes, lowest bit first.
class BitWriter {
 public:
  // A Huffman code, whose highest bit comes first.
  void code(unsigned bits, int count) {
    while (count-- > 0) bit(bits >> count & 1);
  }
  void bit(unsigned value) {
    if (used_ % 8 == 0) bytes_ += '\0';
    bytes_.back() = static_cast<char>(static_cast<unsigned char>(bytes_.back()) | value << used_ % 8);
    ++used_;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
  std::size_t used_ = 0;
};

// The beginning of a gzip member of one zero and then `content_bytes` more, 258 in each 13 bits.
std::string bomb(std::size_t content_bytes) {
  BitWriter blocks;
  blocks.bit(1);               // the last block
  blocks.code(0b10, 2);        // of the fixed code
  blocks.code(0b00110000, 8);  // the byte 0
  for (int i = 0; i < 16; ++i) {
    blocks.code(0b11000101, 8);  // 258 bytes
    blocks.code(0b00000, 5);     // as the one before
  }
  // 8 times 13 bits are 13 bytes, which repeat from anywhere behind the 11 bits of the beginning.
  const std::string repeating = blocks.bytes().substr(2, 13);
  std::string out("\x1f\x8b\x08\0\0\0\0\0\0\x03", 10);
  out += blocks.bytes().substr(0, 2);
  for (std::size_t made = 0; made < content_bytes; made += std::size_t{8} * 258) out += repeating;
  return out;
}

TEST_CASE_FIXTURE(InflaterFixture, "bombs are refused where the bound is, however much is in them") {
  CHECK(inflated(gzipped(std::string(kMiB, '\0'))).size() == kMiB);
  CHECK(inflated(gzipped(std::string(kBytesMax, '\0'))).size() == kBytesMax);
  CHECK(inflated(gzipped(std::string(kBytesMax + 1, '\0'))) == "too large");
  CHECK(inflated(gzipped(std::string(100 * kMiB, '\0'))) == "too large");
  CHECK(inflated(bomb(1000 * kMiB)) == "too large");
  CHECK(inflated(bomb(10'000 * kMiB)) == "too large");
  // Below the bound it is only a body that was cut off.
  CHECK(inflated(bomb(kMiB)) == "corrupt");
  std::string members;
  const std::string one = gzipped(std::string(kMiB, '\0'));
  for (int i = 0; i < 10'000; ++i) members += one;
  CHECK(inflated(members) == "too large");
}

TEST_CASE_FIXTURE(InflaterFixture, "an inflater that has refused a body takes the next one") {
  const std::string good = gzipped("good");
  for (const std::string& bad :
       {good.substr(0, 12), gzipped(std::string(kBytesMax + 1, '\0')), std::string()}) {
    CHECK(inflated(bad) != "good");
    CHECK(inflated(good) == "good");
  }
}

}  // namespace
}  // namespace kavach::http
