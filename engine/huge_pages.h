// HugePages: memory for tables that are read at random places.
//
// Of a table of some hundred MiB in pages of 4 KiB nearly every access also misses the processor's list of
// pages, and waits for the memory twice: for the page's entry, then for the line; prefetching does not help,
// since few pages are looked up at a time. With pages of 2 MiB the list is long enough. Blocks are cut out of
// large pieces that ask the kernel for such pages, and what is freed is used again before a piece is added.
// Where the kernel has none it gives ordinary ones, and nothing else changes.
//
// Owned by one table, on its thread. Blocks should be large and live long; smaller ones (kBlockBytesMin) come
// from the heap.
#pragma once

#include <cstddef>
#include <map>
#include <type_traits>

namespace kavach {

class HugePages {
 public:
  static constexpr std::size_t kBlockBytesMin = std::size_t{32} << 10;
  static constexpr std::size_t kPieceBytes = std::size_t{32} << 20;

  HugePages() = default;
  // REQUIRES: everything was released.
  ~HugePages();
  HugePages(const HugePages&) = delete;
  HugePages& operator=(const HugePages&) = delete;

  // Aligned to a cache line, and not filled. Throws std::bad_alloc.
  void* allocate(std::size_t bytes);
  // `bytes` as they were asked for.
  void release(void* block, std::size_t bytes) noexcept;

  // Memory that it holds: blocks, and what was released between them and not taken again.
  std::size_t bytes() const noexcept { return heap_bytes_ + used_bytes_; }

 private:
  struct Piece {
    std::size_t bytes;
    std::size_t used;  // from its beginning; there has never been anything behind it
  };
  using Runs = std::map<std::byte*, std::size_t>;  // by address, with their bytes

  Runs::iterator add_piece(std::size_t block_bytes);

  std::map<std::byte*, Piece> pieces_;
  Runs free_;                   // what is free in them; neighbours within a piece are joined
  std::size_t used_bytes_ = 0;  // of the pieces
  std::size_t heap_bytes_ = 0;  // of the blocks that are in no piece
};

// For a std::vector. REQUIRES: `pages` outlives it.
template <typename T>
struct HugePageAllocator {
  using value_type = T;
  using propagate_on_container_move_assignment = std::true_type;
  using propagate_on_container_swap = std::true_type;
  explicit HugePageAllocator(HugePages& pages) noexcept : pages_(&pages) {}
  T* allocate(std::size_t n) { return static_cast<T*>(pages_->allocate(n * sizeof(T))); }
  void deallocate(T* block, std::size_t n) noexcept { pages_->release(block, n * sizeof(T)); }
  friend bool operator==(const HugePageAllocator&, const HugePageAllocator&) = default;

 private:
  HugePages* pages_;
};

}  // namespace kavach
