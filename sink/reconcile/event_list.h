// EventList: ids of events with their organizations, 20 bytes each, to be compared by sorting.
//
// Filled, then sorted once, then only asked. While it is filled its memory may be three times what it holds
// (a vector that grows). One thread at a time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "engine/ids.h"

namespace kavach::sink {

struct ListedEvent {
  Uuid id;
  std::uint32_t org = 0;  // a number that whoever fills the list gives organizations
};
static_assert(sizeof(ListedEvent) == 20);

class EventList {
 public:
  void add(const Uuid& id, std::uint32_t org) { events_.push_back({id, org}); }

  // Sorts, and leaves each id once: calls `repeated` for each of the others.
  void sort(const std::function<void(const ListedEvent& event)>& repeated) {
    std::sort(events_.begin(), events_.end(),
              [](const ListedEvent& a, const ListedEvent& b) { return a.id < b.id; });
    std::size_t kept = 0;
    for (std::size_t i = 0; i < events_.size(); ++i) {
      if (kept > 0 && events_[kept - 1].id == events_[i].id) {
        repeated(events_[i]);
      } else {
        events_[kept++] = events_[i];
      }
    }
    events_.resize(kept);
  }
  void sort() {
    sort([](const ListedEvent&) {});
  }

  // REQUIRES: sorted.
  bool has(const Uuid& id) const noexcept {
    const auto at =
        std::lower_bound(events_.begin(), events_.end(), id,
                         [](const ListedEvent& event, const Uuid& key) { return event.id < key; });
    return at != events_.end() && at->id == id;
  }

  const std::vector<ListedEvent>& events() const noexcept { return events_; }

 private:
  std::vector<ListedEvent> events_;
};

}  // namespace kavach::sink
