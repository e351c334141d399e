// The lease protocol in Redis's terms: requests as EVALSHA commands, replies as what LeaseKeeper reads.
//
// Keys (all but the epoch carry the organization as hash tag, every one expires):
//   <prefix>epoch                        which run of the server's memory this is; 400 days
//   <prefix>rl:{org}:daily               the day, and what each node holds and has spent; 48 h
//   <prefix>rl:{org}:burst               granted units by second; 2 min
//   <prefix>spend:{org}:daily:2026-11-25, :monthly:2026-11, :total    usage by node; 3, 40 and 400 days
//   <prefix>agents:{org}                 agents by when they were last seen; 25 h
// The epoch is one key for all organizations, so a Redis Cluster, which would keep it elsewhere than an
// organization's own keys, is not supported.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "quota/fleet_state.h"
#include "quota/lease_keeper.h"
#include "quota/redis/reply.h"

namespace kavach::quota {

class RedisWire {
 public:
  struct Options {
    std::string prefix = "kavach:";
    std::int64_t learn_us = 3 * kMicrosPerSecond;
    FleetState::Options fleet;
  };
  explicit RedisWire(const Options& options) : options_(options) {}

  // Which run of the server is spoken to (INFO server); before the first command.
  void set_run_id(std::string run_id) { run_id_ = std::move(run_id); }

  std::string renew_command(const Uuid& org, const RenewRequest& request) const;
  // Of the request's agents only `count` from `first` on.
  std::string agents_command(const Uuid& org, const AgentsRequest& request, std::size_t first,
                             std::size_t count) const;

  // What must be remembered of a request to read its reply.
  struct Asked {
    NodeId node = 0;
    std::uint64_t seq = 0;
    std::array<std::int64_t, kBudgetPeriods> periods{};
    bool has_usage = false;
    explicit Asked(const RenewRequest& request)
        : node(request.node), seq(request.seq), periods(request.periods), has_usage(request.has_usage) {}
  };
  // nullopt: not what the script answers.
  static std::optional<RenewReply> renew_reply(const Asked& asked, const RedisReply& reply);
  // Adds to `result`. `fingerprints` are those of the command. False: not what the script answers.
  static bool agents_reply(std::span<const std::uint64_t> fingerprints, const RedisReply& reply,
                           AgentsReply& result);

  // From then on the scripts take this for the time.
  void TEST_set_clock(WallMicros now) { test_clock_ = now; }

 private:
  std::string key(std::string_view kind, const Uuid& org, std::string_view rest) const;
  void begin(RedisCommand& command) const;

  Options options_;
  std::string run_id_;
  std::optional<WallMicros> test_clock_;
};

}  // namespace kavach::quota
