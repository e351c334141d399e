#include "http/ingest/inflate.h"

#include <libdeflate.h>

#include <algorithm>
#include <memory>

#include "engine/check.h"

namespace kavach::http {
namespace {

// DEFLATE cannot do better than 1032 bytes of content from one byte (a match of 258 in two bits).
constexpr std::size_t kRatioMax = 1032;
constexpr std::size_t kFirstBytesMin = 4096;
constexpr std::size_t kTrailerBytes = 4;

// How much the last member says that it holds (ISIZE, modulo 2^32). Only a hint: anyone may write anything
// there.
std::size_t claimed_size(std::string_view gzip) noexcept {
  if (gzip.size() < kTrailerBytes) return 0;
  std::uint32_t size = 0;
  const auto* const trailer =
      reinterpret_cast<const unsigned char*>(gzip.data() + gzip.size() - kTrailerBytes);
  for (int i = 3; i >= 0; --i) size = size << 8 | trailer[i];
  return size;
}

bool all_zero(std::string_view bytes) noexcept {
  return bytes.find_first_not_of('\0') == std::string_view::npos;
}

struct FreeDecompressor {
  void operator()(libdeflate_decompressor* d) const noexcept { libdeflate_free_decompressor(d); }
};

}  // namespace

struct Inflater::Impl {
  std::unique_ptr<libdeflate_decompressor, FreeDecompressor> decompressor{libdeflate_alloc_decompressor()};
};

Inflater::Inflater() : impl_(std::make_unique<Impl>()) {
  KAVACH_CHECK(impl_->decompressor != nullptr, "no memory for the decompressor");
}
Inflater::~Inflater() = default;

bool Inflater::inflate(std::string_view gzip, std::size_t bytes_max, PaddedBuffer& out, InflateError& error) {
  out.clear();
  error = InflateError::kCorrupt;
  const std::size_t possible = std::min(bytes_max, gzip.size() * kRatioMax);
  out.reserve(std::min(possible, std::max(claimed_size(gzip), kFirstBytesMin)));

  std::string_view rest = gzip;
  do {
    std::size_t read = 0;
    std::size_t written = 0;
    const std::size_t room = std::min(out.capacity(), bytes_max) - out.size();
    switch (libdeflate_gzip_decompress_ex(impl_->decompressor.get(), rest.data(), rest.size(),
                                          out.data() + out.size(), room, &read, &written)) {
      case LIBDEFLATE_SUCCESS:
        out.resize(out.size() + written);
        rest.remove_prefix(read);
        break;
      case LIBDEFLATE_INSUFFICIENT_SPACE:
        // Starts this member anew: doubling keeps the work within twice that of the content.
        if (out.size() + room == bytes_max) {
          error = InflateError::kTooLarge;
          return false;
        }
        out.reserve(std::min(bytes_max, out.capacity() * 2));
        break;
      default:
        return false;
    }
    // Zeros behind the last member are padding (RFC 1952 knows none, tapes and Python's gzip module do).
  } while (!all_zero(rest));
  return true;
}

}  // namespace kavach::http
