#include "engine/clock.h"

#include <time.h>

namespace kavach {
namespace {

std::int64_t read_micros(clockid_t id) noexcept {
  timespec t{};
  ::clock_gettime(id, &t);
  return static_cast<std::int64_t>(t.tv_sec) * kMicrosPerSecond + t.tv_nsec / 1000;
}

class SystemClock final : public Clock {
 public:
  WallMicros wall() const noexcept override { return read_micros(CLOCK_REALTIME); }
  MonoMicros mono() const noexcept override { return read_micros(CLOCK_MONOTONIC); }
};

}  // namespace

const Clock& system_clock() noexcept {
  static const SystemClock clock;
  return clock;
}

}  // namespace kavach
