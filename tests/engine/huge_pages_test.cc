// HugePages: blocks never overlap and keep their content in random histories, what is freed is used again,
// and a piece goes back to the kernel when nothing is left in it.
#include "engine/huge_pages.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "engine/ids.h"

namespace kavach {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

struct Block {
  std::byte* bytes;
  std::size_t size;
  std::byte mark;
};

// Only its ends: a block that overlaps another one by a part begins or ends in it.
void write_ends(const Block& block) {
  std::memset(block.bytes, static_cast<int>(block.mark), 64);
  std::memset(block.bytes + block.size - 64, static_cast<int>(block.mark), 64);
}
bool has_its_ends(const Block& block) {
  const auto is_mark = [&](std::byte byte) { return byte == block.mark; };
  return std::all_of(block.bytes, block.bytes + 64, is_mark) &&
         std::all_of(block.bytes + block.size - 64, block.bytes + block.size, is_mark);
}

TEST_CASE("blocks of any size keep their content whatever is taken and released around them") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    HugePages pages;
    std::vector<Block> blocks;
    for (int step = 0; step < 2000; ++step) {
      if (blocks.size() < 100 && random.next() % 5 < 3) {
        const std::size_t size = 64 + (std::size_t{1} << (10 + random.next() % 13)) + random.next() % 5000;
        const Block block{static_cast<std::byte*>(pages.allocate(size)), size,
                          static_cast<std::byte>(random.next())};
        REQUIRE(reinterpret_cast<std::uintptr_t>(block.bytes) % 64 == 0);
        write_ends(block);
        blocks.push_back(block);
      } else if (!blocks.empty()) {
        std::swap(blocks[random.next() % blocks.size()], blocks.back());
        REQUIRE(has_its_ends(blocks.back()));
        pages.release(blocks.back().bytes, blocks.back().size);
        blocks.pop_back();
      }
    }
    for (const Block& block : blocks) {
      REQUIRE(has_its_ends(block));
      pages.release(block.bytes, block.size);
    }
    CHECK(pages.bytes() == 0);
  }
}

TEST_CASE("neighbours that are free make room for a block as large as all of them") {
  HugePages pages;
  std::vector<void*> blocks;
  for (std::size_t i = 0; i < HugePages::kPieceBytes / kMiB; ++i) blocks.push_back(pages.allocate(kMiB));
  CHECK(pages.bytes() == HugePages::kPieceBytes);
  for (const std::size_t i : {5, 3, 4}) pages.release(blocks[i], kMiB);
  void* const joined = pages.allocate(3 * kMiB);
  CHECK(joined == blocks[3]);
  CHECK(pages.bytes() == HugePages::kPieceBytes);
  pages.release(joined, 3 * kMiB);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (i < 3 || i > 5) pages.release(blocks[i], kMiB);
  }
  CHECK(pages.bytes() == 0);
}

TEST_CASE("small blocks take no piece, and one that is larger than a piece has its own") {
  HugePages pages;
  void* const small = pages.allocate(HugePages::kBlockBytesMin - 1);
  CHECK(pages.bytes() == HugePages::kBlockBytesMin - 1);
  void* const large = pages.allocate(HugePages::kPieceBytes + 1);
  CHECK(pages.bytes() > HugePages::kPieceBytes + HugePages::kBlockBytesMin);
  pages.release(large, HugePages::kPieceBytes + 1);
  pages.release(small, HugePages::kBlockBytesMin - 1);
  CHECK(pages.bytes() == 0);
}

TEST_CASE("vectors of one table can be swapped and moved, and share its pages") {
  HugePages pages;
  using Vector = std::vector<std::uint64_t, HugePageAllocator<std::uint64_t>>;
  Vector a(HugePageAllocator<std::uint64_t>{pages});
  Vector b(a.get_allocator());
  a.resize(100'000, 1);
  b.resize(10, 2);
  a.swap(b);
  CHECK(a == Vector(10, 2, a.get_allocator()));
  CHECK(std::count(b.begin(), b.end(), 1U) == 100'000);
  a = std::move(b);
  CHECK(a.size() == 100'000);
  CHECK(pages.bytes() >= 100'000 * sizeof(std::uint64_t));
}

}  // namespace
}  // namespace kavach
