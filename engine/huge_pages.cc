#include "engine/huge_pages.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <new>
#include <utility>

#include "engine/check.h"

namespace kavach {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kSmallPage = std::size_t{4} << 10;
constexpr std::size_t kLine = 64;
static_assert(HugePages::kPieceBytes % kHugePage == 0);

constexpr std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

}  // namespace

HugePages::~HugePages() {
  KAVACH_CHECK(pieces_.empty(), "a table outlives its pages");
}

void* HugePages::allocate(std::size_t bytes) {
  if (bytes < kBlockBytesMin) {
    void* const small = std::aligned_alloc(kLine, round_up(bytes, kLine));
    if (small == nullptr) throw std::bad_alloc();
    heap_bytes_ += bytes;
    return small;
  }
  const std::size_t taken = round_up(bytes, kSmallPage);
  // The lowest that fits, so that the highest pieces become free.
  auto run = std::find_if(free_.begin(), free_.end(), [&](const auto& free) { return free.second >= taken; });
  if (run == free_.end()) run = add_piece(taken);
  const auto [block, size] = *run;
  free_.erase(run);
  if (size > taken) free_.emplace(block + taken, size - taken);
  const auto piece = std::prev(pieces_.upper_bound(block));
  const auto end = static_cast<std::size_t>(block + taken - piece->first);
  if (end > piece->second.used) used_bytes_ += end - std::exchange(piece->second.used, end);
  return block;
}

void HugePages::release(void* block, std::size_t bytes) noexcept {
  if (bytes < kBlockBytesMin) {
    heap_bytes_ -= bytes;
    return std::free(block);
  }
  auto* const begin = static_cast<std::byte*>(block);
  const auto piece = std::prev(pieces_.upper_bound(begin));
  std::byte* const piece_end = piece->first + piece->second.bytes;
  auto run = free_.emplace(begin, round_up(bytes, kSmallPage)).first;
  // Pieces that lie side by side are given back one by one, so that no run reaches from one into the next.
  const auto next = std::next(run);
  if (next != free_.end() && next->first == run->first + run->second && next->first != piece_end) {
    run->second += next->second;
    free_.erase(next);
  }
  if (run != free_.begin() && begin != piece->first) {
    const auto before = std::prev(run);
    if (before->first + before->second == begin) {
      before->second += run->second;
      free_.erase(run);
      run = before;
    }
  }
  if (run->second != piece->second.bytes) return;
  ::munmap(piece->first, piece->second.bytes);
  used_bytes_ -= piece->second.used;
  free_.erase(run);
  pieces_.erase(piece);
}

HugePages::Runs::iterator HugePages::add_piece(std::size_t block_bytes) {
  const std::size_t bytes = std::max(kPieceBytes, round_up(block_bytes, kHugePage));
  // A huge page begins at a multiple of its size.
  void* const memory = ::mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  auto* const start = static_cast<std::byte*>(memory);
  const std::size_t before =
      round_up(reinterpret_cast<std::uintptr_t>(start), kHugePage) - reinterpret_cast<std::uintptr_t>(start);
  std::byte* const piece = start + before;
  if (before > 0) ::munmap(start, before);
  if (before < kHugePage) ::munmap(piece + bytes, kHugePage - before);
  // Refused where the kernel has none: then these are ordinary pages.
  [[maybe_unused]] const int advised = ::madvise(piece, bytes, MADV_HUGEPAGE);
  pieces_.emplace(piece, Piece{bytes, 0});
  return free_.emplace(piece, bytes).first;
}

}  // namespace kavach
