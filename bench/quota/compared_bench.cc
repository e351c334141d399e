// A verdict of ours beside what is done elsewhere for every request: a counter in Redis (INCRBY and EXPIRE in
// one round trip over a unix socket), and a map of counters behind a mutex.
//
// Both only count. Ours does that and settles, with `keys` deduplicates every event, and knows agents, burst
// and budgets. Redis and the map are asked once per batch, the best that can be made of them. CPU is this
// thread's; that of the redis-server is a counter of its own.
#include <benchmark/benchmark.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "bench/quota/quota_node.h"

namespace kavach::bench {
namespace {

constexpr std::uint32_t kOrgs = 1'000;

void BM_VerdictKavach(benchmark::State& state) {
  QuotaNode node({.orgs = kOrgs,
                  .events = static_cast<std::uint32_t>(state.range(0)),
                  .keys = 1'000'000,
                  .with_keys = state.range(1) != 0});
  std::int64_t admitted = 0;
  for (auto _ : state) admitted += static_cast<std::int64_t>(node.turn());
  if (admitted != state.iterations() * state.range(0)) {
    state.SkipWithError("wrong answer: the time means nothing");
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_VerdictKavach)
    ->ArgNames({"events", "keys"})
    ->ArgsProduct({{1, 100}, {0, 1}})
    ->Iterations(10'000);

// --- a map behind a mutex ----------------------------------------------------------------------------------

class CounterMap {
 public:
  explicit CounterMap(const std::vector<Uuid>& orgs) {
    for (const Uuid& org : orgs) counts_[org] = 0;
  }
  bool take(const Uuid& org, std::int64_t events, std::int64_t limit) {
    const std::lock_guard lock(mutex_);
    std::int64_t& count = counts_[org];
    if (count + events > limit) return false;
    count += events;
    return true;
  }

 private:
  std::mutex mutex_;
  std::unordered_map<Uuid, std::int64_t, UuidHash> counts_;
};

std::vector<Uuid> some_orgs() {
  Random random(1);
  std::vector<Uuid> orgs(kOrgs);
  for (Uuid& org : orgs) org = make_uuid7(1, random);
  return orgs;
}

void BM_VerdictMutexMap(benchmark::State& state) {
  static const std::vector<Uuid> orgs = some_orgs();
  static CounterMap counters(orgs);
  Random random(static_cast<std::uint64_t>(state.thread_index()) + 1);
  std::int64_t taken = 0;
  for (auto _ : state) {
    taken += counters.take(orgs[random.next() % kOrgs], state.range(0), 1'000'000'000'000'000) ? 1 : 0;
  }
  if (taken != state.iterations()) state.SkipWithError("wrong answer: the time means nothing");
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_VerdictMutexMap)->ArgName("events")->Arg(1)->Arg(100)->Threads(1)->Threads(2);

// --- Redis -------------------------------------------------------------------------------------------------

struct ContextFree {
  void operator()(redisContext* context) const noexcept { redisFree(context); }
};
struct ReplyFree {
  void operator()(redisReply* reply) const noexcept { freeReplyObject(reply); }
};
using Context = std::unique_ptr<redisContext, ContextFree>;
using Reply = std::unique_ptr<redisReply, ReplyFree>;

// A redis-server of our own in a folder of its own; both are gone with it.
class RedisServer {
 public:
  RedisServer() {
    std::string pattern = (std::filesystem::temp_directory_path() / "kavach-bench-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) return;
    folder_ = pattern;
    const std::string socket = (folder_ / "redis.sock").string();
    const std::string folder = folder_.string();
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", socket.c_str(), "--save", "",
               "--appendonly", "no", "--dir", folder.c_str(), "--logfile", "log", nullptr);
      ::_exit(127);
    }
    for (int attempt = 0; attempt < 2'000 && context_ == nullptr; ++attempt) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      if (::waitpid(pid_, nullptr, WNOHANG) != 0) {
        pid_ = -1;
        return;
      }
      Context made(redisConnectUnix(socket.c_str()));
      if (made != nullptr && made->err == 0) context_ = std::move(made);
    }
  }
  ~RedisServer() {
    context_.reset();
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    std::error_code ignored;
    if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
  }
  RedisServer(const RedisServer&) = delete;
  RedisServer& operator=(const RedisServer&) = delete;

  redisContext* context() const { return context_.get(); }
  double cpu_ns() const {
    double ran = 0;
    std::ifstream("/proc/" + std::to_string(pid_) + "/schedstat") >> ran;
    return ran;
  }

 private:
  std::filesystem::path folder_;
  pid_t pid_ = -1;
  Context context_;
};

// Whether the counter of `org` is within its limit after `events` more.
bool take(redisContext* context, std::uint64_t org, std::int64_t events, std::int64_t limit) {
  redisAppendCommand(context, "INCRBY quota:%llu %lld", static_cast<unsigned long long>(org),
                     static_cast<long long>(events));
  redisAppendCommand(context, "EXPIRE quota:%llu 86400", static_cast<unsigned long long>(org));
  bool within = true;
  for (int i = 0; i < 2; ++i) {
    void* got = nullptr;
    if (redisGetReply(context, &got) != REDIS_OK) return false;
    const Reply reply(static_cast<redisReply*>(got));
    within = within && reply->type == REDIS_REPLY_INTEGER && reply->integer > 0 && reply->integer <= limit;
  }
  return within;
}

void BM_VerdictRedis(benchmark::State& state) {
  const RedisServer server;
  if (server.context() == nullptr) {
    state.SkipWithError("redis-server does not start (Debian: apt-get install redis-server)");
    return;
  }
  Random random(1);
  std::int64_t taken = 0;
  const double before = server.cpu_ns();
  for (auto _ : state) {
    taken += take(server.context(), random.next() % kOrgs, state.range(0), 1'000'000'000'000'000) ? 1 : 0;
  }
  if (taken != state.iterations()) state.SkipWithError("wrong answer: the time means nothing");
  state.SetItemsProcessed(state.iterations());
  state.counters["server_cpu_ns"] = (server.cpu_ns() - before) / static_cast<double>(state.iterations());
}
BENCHMARK(BM_VerdictRedis)->ArgName("events")->Arg(1)->Arg(100)->Iterations(5'000)->UseRealTime();

}  // namespace
}  // namespace kavach::bench
