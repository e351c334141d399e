// CRC32C (Castagnoli), the checksum of everything that Kavach writes to disk.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kavach {

// Continues from `crc` (0 to begin). Any thread.
std::uint32_t crc32c(std::uint32_t crc, const void* bytes, std::size_t size) noexcept;

}  // namespace kavach
