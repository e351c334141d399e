// Direct pass: a plain body read straight through, one member after the other, without an index of its
// tokens.
//
// A client writes the members of all events in one order. So the next key is guessed, as the one that stood
// here in the event before, and compared in one step; the value behind it is read where it stands. A wrong
// guess only costs a search among the known keys. Whatever is not plain (an escape in a text, an unknown
// member, a number that is no plain decimal, ...) ends the pass without a word, and the next one begins anew:
// it takes nothing that the other passes do not take, and makes the same of it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "engine/event.h"

namespace kavach::http {

// One per parser; what it remembers from body to body are guesses, which change nothing but the speed.
class DirectPass {
 public:
  static constexpr std::size_t kMembers = 13;

  // As BatchParser::fast(). REQUIRES: `batch.events` and `arena` are empty.
  bool run(std::string_view body, std::size_t events_max, WallMicros now, Batch& batch, std::string& arena);

 private:
  class Reader;

  // By position in an event: the member that stood there in the last one, as an index of the known ones.
  std::array<std::uint8_t, kMembers> order_{};
  // The beginning of the last timestamp, up to its hour, and the moment that it names.
  std::array<char, 13> hour_text_{};
  WallMicros hour_ = 0;
};

}  // namespace kavach::http
