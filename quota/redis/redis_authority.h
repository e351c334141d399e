// RedisAuthority: the fleet's authority is a Redis: one round trip for each question of a LeaseKeeper.
//
// What is sent and answered: quota/redis/wire.h. An answer that is an error, or none of the script's, is an
// answer that never came: the keeper asks anew. Its shard's own thread only, but for the constructor; made
// after its connection, before the runtime starts.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "engine/metrics.h"
#include "engine/shard.h"
#include "quota/lease_keeper.h"
#include "quota/redis/connection.h"
#include "quota/redis/wire.h"

namespace kavach::quota {

struct RedisAuthorityMetrics {
  Counter bad_replies;  // errors of the scripts, and answers that are none of theirs
  Counter script_loads;
  Gauge
      learning;  // 1: nothing new is leased until the nodes have restated what they hold; 1 before the start
  void add_to(MetricsRegistry& registry, ShardId shard) const;
};

class RedisAuthority final : public Authority {
 public:
  // REQUIRES: shard and connection outlive this. Listens to the connection.
  RedisAuthority(Shard& shard, RedisConnection& connection, const RedisWire::Options& options);

  // To whom answers go. Before the connection starts; outlives it.
  void set_keeper(LeaseKeeper& keeper) { keeper_ = &keeper; }

  void send(OrgLedger& org, const RenewRequest& request) override;
  void send(OrgLedger& org, const AgentsRequest& request) override;

  // Any thread.
  const RedisAuthorityMetrics& metrics() const noexcept { return metrics_; }

 private:
  struct Question {
    std::string command;
    std::function<void(const RedisReply* reply)> answer;
    bool is_second_try = false;
  };

  void on_connected(const std::string& run_id);
  void load_scripts();
  // Also asked when all is well: a node whose organizations are all idle must hear that data was lost, while
  // it is still learned what was. And learning takes as long as messages come: a fleet that has nothing to
  // say would never end it.
  void ask_learning();
  // Sends a script's command; once more when the server has forgotten the script. `answer` is called once,
  // with null for an error or when nothing comes.
  void ask(std::string command, std::function<void(const RedisReply* reply)> answer);
  void ask(const std::shared_ptr<Question>& question);
  void note_bad_reply(std::string_view what);
  Now now() { return {.wall = shard_.wall_now(), .mono = shard_.mono_now()}; }

  Shard& shard_;
  RedisConnection& connection_;
  RedisWire wire_;
  LeaseKeeper* keeper_ = nullptr;
  static constexpr int kTicksOfASecond = 10;
  int ticks_since_asked_ = 0;
  std::uint64_t epoch_ = 0;  // as of the last answer on this connection; 0: none yet
  bool loading_ = false;     // scripts were sent and not answered: what follows finds them there
  bool complained_ = false;
  RedisAuthorityMetrics metrics_;
};

}  // namespace kavach::quota
