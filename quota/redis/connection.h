// RedisConnection: one shard's connection to Redis, on the shard's own loop.
//
//   away --start()--> resolving --> connecting --> greeting --> ready
//     ^  jittered backoff, 50 ms .. 1 s                          |
//     +---- any failure, at any point ---------------------------+
//
// The greeting is AUTH, SELECT, PING and INFO: a server that is loading its data, or is a replica, is none to
// ask. Commands are gathered and written once per turn of the loop; replies are matched to them in order.
// Nothing here blocks: a name is looked up on the worker pool, and a server that takes no bytes or gives no
// answer costs bounded memory, then the connection.
//
// With Options::channel it is a subscriber: the greeting ends with SUBSCRIBE, messages come as they are
// published, and nothing may be sent (RESP2 allows no other commands). Since such a connection is silent for
// hours, PING asks now and then whether the server is still there.
//
// Made before the runtime starts, outlives its run (Runtime::stop), and is made after everything that sends
// from an end-of-turn hook, so that its own hook comes last. Its shard's own thread only, but for the
// constructor.
#pragma once

#include <array>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/ids.h"
#include "engine/metrics.h"
#include "engine/shard.h"
#include "engine/worker_pool.h"
#include "quota/redis/address.h"
#include "quota/redis/reply.h"
#include "quota/redis/stream.h"
#include "quota/redis/url.h"

namespace kavach::quota {

struct RedisMetrics {
  Counter commands, replies, error_replies;
  Counter refused_commands;  // not connected, or the bound reached
  Counter connects, disconnects, failed_attempts;
  Gauge connected;         // 1 or 0
  Gauge unanswered_bytes;  // of commands
  DurationHistogram round_trip;
  void add_to(MetricsRegistry& registry, ShardId shard) const;
};

class RedisConnection {
 public:
  struct Options {
    RedisUrl url;
    std::shared_ptr<const RedisTls> tls;  // REQUIRES: not null when url.tls
    // Commands whose reply has not come, written or not. 100,000 renewals of 700 bytes would be 70 MB.
    std::size_t unanswered_bytes_max = std::size_t{64} << 20;
    RedisReplyReader::Options replies;
    std::int64_t attempt_us = 2 * kMicrosPerSecond;  // from looking up the name to ready
    std::int64_t stall_us = 3 * kMicrosPerSecond;    // without an answer the connection is given up
    std::int64_t backoff_min_us = 50 * kMicrosPerMilli;
    std::int64_t backoff_max_us = kMicrosPerSecond;
    std::string channel;                          // empty: no subscriber
    std::int64_t ping_us = 5 * kMicrosPerSecond;  // of silence on the channel
  };
  // The reply, or null: the connection was lost before it came.
  using Callback = std::function<void(const RedisReply* reply)>;

  // REQUIRES: shard and workers outlive the connection.
  RedisConnection(Shard& shard, WorkerPool& workers, const Options& options);
  ~RedisConnection();
  RedisConnection(const RedisConnection&) = delete;
  RedisConnection& operator=(const RedisConnection&) = delete;

  // `connected` is told which run of the server answers. Before start().
  void set_listener(std::function<void(const std::string& run_id)> connected,
                    std::function<void()> disconnected);

  // `message` is called with the text of each message of the channel. Before start().
  void set_subscriber(std::function<void(std::string_view text)> message);

  void start();
  // Closes for good, after what was sent and fits into the socket.
  void stop();

  // Takes a command (RedisCommand::bytes()); written with the end of this turn. `callback` is called exactly
  // once, never from within send(). False: not connected, or too much is unanswered; then nothing is taken.
  // REQUIRES: no subscriber.
  [[nodiscard]] bool send(std::string_view command, Callback callback);

  bool ready() const noexcept { return state_ == State::kReady; }
  // Any thread.
  const RedisMetrics& metrics() const noexcept { return metrics_; }

 private:
  enum class State : std::uint8_t { kStopped, kAway, kResolving, kConnecting, kGreeting, kReady };
  struct Unanswered {
    Callback callback;
    std::size_t bytes = 0;
    MonoMicros sent = 0;
  };
  using Timer = boost::asio::basic_waitable_timer<std::chrono::steady_clock,
                                                  boost::asio::wait_traits<std::chrono::steady_clock>,
                                                  boost::asio::io_context::executor_type>;

  void attempt();
  void look_up();
  void connect_next();
  void after_connect(RedisStream::Outcome outcome);
  void greet();
  void on_greeted();
  void push(std::string_view command, Callback callback);
  void await(bool for_read);
  void await_or_fail(RedisStream::Outcome outcome);
  void write_some();
  void read_some();
  bool take_replies();
  void check_deadlines();
  void ping();
  void fail(std::string reason);
  void close();

  // Constant after construction, but for the listener.
  Shard& shard_;
  WorkerPool& workers_;
  const Options options_;
  const std::string shown_;
  std::function<void(const std::string&)> connected_ = [](const std::string&) {};
  std::function<void()> disconnected_ = [] {};
  std::function<void(std::string_view)> message_ = [](std::string_view) {};

  State state_ = State::kStopped;
  // Changes with every socket: what was asked of an earlier one is answered to nobody.
  std::uint64_t generation_ = 0;
  MonoMicros attempt_until_ = 0;
  std::uint32_t failures_ = 0;  // since the last reply in state ready
  std::string logged_reason_;
  Random random_;
  Timer backoff_;

  bool looking_up_ = false;
  std::vector<RedisAddress> addresses_;
  std::size_t next_address_ = 0;
  std::string greeting_error_;
  std::string run_id_;
  MonoMicros heard_ = 0;  // the last reply or message
  std::optional<RedisStream> stream_;
  std::optional<RedisReplyReader> reader_;
  bool awaiting_read_ = false;
  bool awaiting_write_ = false;
  std::string output_;
  std::size_t written_ = 0;  // of output_
  std::deque<Unanswered> unanswered_;
  std::size_t unanswered_bytes_ = 0;
  std::array<char, 16 << 10> input_{};
  RedisMetrics metrics_;
};

}  // namespace kavach::quota
