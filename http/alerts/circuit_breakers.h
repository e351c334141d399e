// CircuitBreakers: keeps from a target that does not answer, so that its messages do not hold up others'.
//
// After three failures in a row a target's breaker is open: nothing is sent to it for a while, then one
// message tries; each further failure makes the pause longer. An answer, whatever it says, closes it.
//
// Not thread-safe.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_map>

#include "engine/clock.h"

namespace kavach::http {

class CircuitBreakers {
 public:
  static constexpr int kFailuresToOpen = 3;
  static constexpr MonoMicros kFirstPause = 30 * kMicrosPerSecond;
  static constexpr MonoMicros kLongestPause = 15 * 60 * kMicrosPerSecond;
  static constexpr std::size_t kTargetsMax = 10'000;

  // How long from `now` nothing may be sent to it; 0: it may.
  MonoMicros pause(std::string_view target, MonoMicros now) const {
    const auto found = breakers_.find(std::string(target));
    return found == breakers_.end() ? 0 : std::max<MonoMicros>(0, found->second.open_until - now);
  }
  void answered(std::string_view target) { breakers_.erase(std::string(target)); }
  void failed(std::string_view target, MonoMicros now) {
    // Whoever has more broken targets than that has none of them spared.
    if (breakers_.size() >= kTargetsMax) breakers_.clear();
    Breaker& breaker = breakers_[std::string(target)];
    if (++breaker.failures < kFailuresToOpen) return;
    breaker.pause = breaker.pause == 0 ? kFirstPause : std::min(breaker.pause * 2, kLongestPause);
    breaker.open_until = now + breaker.pause;
  }

 private:
  struct Breaker {
    int failures = 0;  // in a row
    MonoMicros pause = 0, open_until = 0;
  };
  std::unordered_map<std::string, Breaker> breakers_;
};

}  // namespace kavach::http
