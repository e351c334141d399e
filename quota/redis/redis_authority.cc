#include "quota/redis/redis_authority.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "engine/log.h"
#include "quota/redis/scripts.h"

namespace kavach::quota {
namespace {

// Agents of one command: the server does nothing else meanwhile, and this takes it about a millisecond.
constexpr std::size_t kAgentsPerCommand = 500;
constexpr std::size_t kLoggedErrorMax = 200;

// An AgentsRequest may go out in several commands; it is answered once, when all are.
struct AgentsUnderWay {
  OrgLedger* org;
  std::vector<std::uint64_t> fingerprints;
  AgentsReply reply;
  std::size_t commands;
  bool lost = false;
};

}  // namespace

void RedisAuthorityMetrics::add_to(MetricsRegistry& registry, ShardId shard) const {
  const MetricsRegistry::Labels labels{{"shard", std::to_string(shard)}};
  registry.add("kavach_redis_bad_replies_total", "Answers of Redis that were errors or made no sense.",
               bad_replies, labels);
  registry.add("kavach_redis_learning", "Shards whose Redis leases nothing new until the fleet has restated.",
               learning, labels);
  registry.add("kavach_redis_script_loads_total", "Times the scripts were sent to Redis.", script_loads,
               labels);
}

RedisAuthority::RedisAuthority(Shard& shard, RedisConnection& connection, const RedisWire::Options& options)
    : shard_(shard), connection_(connection), wire_(options) {
  metrics_.learning.set(1);
  shard.at_tick([this] {
    const bool is_due = metrics_.learning.value() != 0 || ++ticks_since_asked_ >= kTicksOfASecond;
    if (is_due && connection_.ready()) ask_learning();
  });
  connection.set_listener([this](const std::string& run_id) { on_connected(run_id); },
                          [this] { keeper_->on_disconnected(now()); });
}

void RedisAuthority::on_connected(const std::string& run_id) {
  wire_.set_run_id(run_id);
  complained_ = false;
  load_scripts();
  metrics_.learning.set(1);
  epoch_ = 0;
  ask_learning();
  keeper_->on_connected(now());
}

void RedisAuthority::ask_learning() {
  ticks_since_asked_ = 0;
  ask(wire_.agents_command({}, {}, 0, 0), [this](const RedisReply* reply) {
    AgentsReply answer;
    if (reply == nullptr || !RedisWire::agents_reply({}, *reply, answer)) return;
    metrics_.learning.set(answer.learning ? 1 : 0);
    const std::uint64_t known = std::exchange(epoch_, answer.epoch);
    if (known != 0 && known != epoch_) keeper_->on_forgotten(now());
  });
}

void RedisAuthority::load_scripts() {
  metrics_.script_loads.add();
  for (const RedisScript* script : {&renew_script(), &agents_script()}) {
    const std::string command = RedisCommand().add("SCRIPT").add("LOAD").add(script->text).bytes();
    const bool taken = connection_.send(command, [this](const RedisReply* reply) {
      loading_ = false;
      if (reply != nullptr && reply->is_error()) note_bad_reply(reply->text);
    });
    loading_ = taken;
  }
}

void RedisAuthority::ask(std::string command, std::function<void(const RedisReply* reply)> answer) {
  // Kept for a second try; shared because a callback of the connection can be copied.
  ask(std::make_shared<Question>(Question{std::move(command), std::move(answer)}));
}

void RedisAuthority::ask(const std::shared_ptr<Question>& question) {
  const bool taken = connection_.send(question->command, [this, question](const RedisReply* reply) {
    if (reply == nullptr || !reply->is_error()) return question->answer(reply);
    if (reply->error_code() == "NOSCRIPT" && !std::exchange(question->is_second_try, true)) {
      if (!loading_) load_scripts();
      return ask(question);
    }
    note_bad_reply(reply->text);
    question->answer(nullptr);
  });
  if (!taken) question->answer(nullptr);
}

void RedisAuthority::note_bad_reply(std::string_view what) {
  metrics_.bad_replies.add();
  if (std::exchange(complained_, true)) return;
  log::error("redis: shard {}: no lease can be renewed: {}", shard_.id(), what.substr(0, kLoggedErrorMax));
}

void RedisAuthority::send(OrgLedger& org, const RenewRequest& request) {
  ask(wire_.renew_command(org.id, request),
      [this, &org, asked = RedisWire::Asked(request)](const RedisReply* reply) {
        if (reply == nullptr) return;
        const auto renewed = RedisWire::renew_reply(asked, *reply);
        if (!renewed) return note_bad_reply("an answer that is none of the script's");
        complained_ = false;
        keeper_->on_reply(org, *renewed, now());
      });
}

void RedisAuthority::send(OrgLedger& org, const AgentsRequest& request) {
  const std::size_t agents = request.fingerprints.size();
  const std::size_t commands = std::max<std::size_t>(1, (agents + kAgentsPerCommand - 1) / kAgentsPerCommand);
  // Shared by the callbacks of all its commands.
  auto under_way = std::make_shared<AgentsUnderWay>(
      AgentsUnderWay{.org = &org, .fingerprints = request.fingerprints, .reply = {}, .commands = commands});
  under_way->reply.seq = request.seq;
  for (std::size_t i = 0; i < commands; ++i) {
    const std::size_t first = i * kAgentsPerCommand;
    const std::size_t count = std::min(kAgentsPerCommand, agents - first);
    ask(wire_.agents_command(org.id, request, first, count),
        [this, under_way, first, count](const RedisReply* reply) {
          const auto asked = std::span(under_way->fingerprints).subspan(first, count);
          if (reply == nullptr) {
            under_way->lost = true;
          } else if (!RedisWire::agents_reply(asked, *reply, under_way->reply)) {
            under_way->lost = true;
            note_bad_reply("an answer that is none of the script's");
          }
          if (--under_way->commands == 0 && !under_way->lost)
            keeper_->on_agents(*under_way->org, under_way->reply, now());
        });
  }
}

}  // namespace kavach::quota
