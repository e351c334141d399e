// Clock: the only way to ask for the time, so that tests and the simulation own it.
#pragma once

#include <cstdint>

namespace kavach {

// Microseconds since 1970-01-01 UTC.
using WallMicros = std::int64_t;
// Microseconds of a clock that never jumps; its zero means nothing.
using MonoMicros = std::int64_t;

inline constexpr std::int64_t kMicrosPerSecond = 1'000'000;
inline constexpr std::int64_t kMicrosPerMilli = 1'000;
inline constexpr std::int64_t kMicrosPerHour = 3'600 * kMicrosPerSecond;

// Any thread. An implementation is constant or atomic.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual WallMicros wall() const noexcept = 0;
  virtual MonoMicros mono() const noexcept = 0;
};

// The machine's clock; lives as long as the process.
const Clock& system_clock() noexcept;

}  // namespace kavach
