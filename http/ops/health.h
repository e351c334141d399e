// Health: what the process knows of its own state, for probes and the status page.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "engine/clock.h"

namespace kavach::http {

// How it stands with the fleet's authority (quota/DESIGN.md).
struct FleetHealth {
  bool connected = false;
  bool learning = false;                     // it leases nothing new yet
  std::optional<WallMicros> degraded_since;  // absent: it answers
  std::int64_t held_events = 0;              // leased and not spent
  std::int64_t unmirrored_cost = 0;          // nano-dollars: what this node may add to a budget's overshoot
};

// How far a follower of the journal is behind it.
struct FollowerHealth {
  bool ok = false;
  std::uint64_t lag_events = 0;
  std::uint64_t lag_bytes = 0;
  std::int64_t lag_us = 0;   // age of the oldest batch that is under way
  std::string problem = {};  // that somebody has to solve; empty: none
};

// What the 202s said since the start, and how many wait to be said.
struct ReceiptCounts {
  std::uint64_t journal = 0;
  std::uint64_t broker = 0;
  std::int64_t waiting = 0;
};

// How far the writer is behind the topic.
struct WriterHealth {
  bool ok = false;
  std::int64_t lag_records = 0;
  std::int64_t lag_seconds = 0;
};

// Any thread.
struct Health {
  std::atomic<bool> ready{false};  // accepting, and not draining
  std::atomic<bool> draining{false};
  std::function<bool()> database_ok;      // set before the start
  std::function<bool()> journal_ok;       // not set: no journal (a writer)
  std::function<FollowerHealth()> store;  // each not set: it follows nothing in this process
  std::function<FollowerHealth()> kafka;
  std::function<ReceiptCounts()> receipts;  // set with kafka
  std::function<WriterHealth()> writer;
  std::function<FleetHealth()> fleet;  // not set: no Redis, the node is its own authority
};

}  // namespace kavach::http
