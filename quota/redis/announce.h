// How a process tells all nodes that the directory in the store has changed: by publishing on one channel of
// Redis. A hint and no more: who misses it sees the change with the next poll of the store.
//
// For an administrator's command, which does nothing else meanwhile; a node listens with ChangeSubscription.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "engine/clock.h"
#include "engine/result.h"
#include "quota/redis/stream.h"
#include "quota/redis/url.h"

namespace kavach::quota {

// `<prefix>changes`. Channels belong to no database of the server.
std::string change_channel(std::string_view prefix);

struct Announcement {
  RedisUrl url;
  std::shared_ptr<const RedisTls> tls;  // REQUIRES: not null when url.tls
  std::string prefix;
  std::int64_t patience_us = kMicrosPerSecond;  // for everything together
};

// Blocks until the server has taken the message, or for patience_us. Failures name no secret.
// REQUIRES: SIGPIPE is ignored, no shard's thread. When a name server is slower than that, a thread that
// waits for it is left behind: for a process which is about to end.
Status announce_change(const Announcement& announcement);

}  // namespace kavach::quota
