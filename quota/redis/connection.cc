#include "quota/redis/connection.h"

#include <fmt/format.h>
#include <netdb.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/check.h"
#include "engine/log.h"

namespace kavach::quota {
namespace {

// What is read before others of the shard have their turn.
constexpr int kReadsPerTurn = 16;
// An output buffer that a burst has made larger is given back.
constexpr std::size_t kOutputKept = 256 << 10;
constexpr std::size_t kLoggedErrorMax = 200;

// The value of `name:value` in an answer to INFO; empty when it is not there.
std::string info_value(std::string_view info, std::string_view name) {
  while (!info.empty()) {
    const std::string_view line = info.substr(0, info.find_first_of("\r\n"));
    if (line.size() > name.size() && line.starts_with(name) && line[name.size()] == ':') {
      return std::string(line.substr(name.size() + 1));
    }
    info.remove_prefix(std::min(info.size(), line.size() + 1));
  }
  return {};
}

// A server that says this is no authority now, whatever it is asked.
bool is_unfit(const RedisReply& reply) {
  constexpr std::string_view kCodes[] = {"READONLY", "LOADING", "MASTERDOWN", "NOAUTH"};
  return std::find(std::begin(kCodes), std::end(kCodes), reply.error_code()) != std::end(kCodes);
}

// What a subscriber hears: {"subscribe", channel, number of channels}, {"message", channel, text}, {"pong",
// ""}.
bool is_heard(const RedisReply& reply, std::string_view kind, std::size_t elements) {
  using Kind = RedisReply::Kind;
  if (reply.kind != Kind::kArray || reply.elements.size() != elements) return false;
  return reply.elements[0].kind == Kind::kText && reply.elements[0].text == kind;
}

bool is_of(const RedisReply& reply, std::string_view channel) {
  return reply.elements[1].kind == RedisReply::Kind::kText && reply.elements[1].text == channel;
}

bool is_subscription(const RedisReply& reply, std::string_view channel) {
  return is_heard(reply, "subscribe", 3) && is_of(reply, channel);
}

bool is_message(const RedisReply& reply, std::string_view channel) {
  return is_heard(reply, "message", 3) && is_of(reply, channel) &&
         reply.elements[2].kind == RedisReply::Kind::kText;
}

bool is_pong(const RedisReply& reply) {
  return is_heard(reply, "pong", 2);
}

}  // namespace

void RedisMetrics::add_to(MetricsRegistry& registry, ShardId shard) const {
  const MetricsRegistry::Labels labels{{"shard", std::to_string(shard)}};
  registry.add("kavach_redis_commands_total", "Commands sent to Redis.", commands, labels);
  registry.add("kavach_redis_replies_total", "Replies of Redis.", replies, labels);
  registry.add("kavach_redis_error_replies_total", "Replies of Redis that were errors.", error_replies,
               labels);
  registry.add("kavach_redis_refused_commands_total",
               "Commands that were not sent: no connection, or too much unanswered.", refused_commands,
               labels);
  registry.add("kavach_redis_connects_total", "Times the connection to Redis was made.", connects, labels);
  registry.add("kavach_redis_disconnects_total", "Times the connection to Redis was lost.", disconnects,
               labels);
  registry.add("kavach_redis_failed_attempts_total", "Attempts to connect to Redis that failed.",
               failed_attempts, labels);
  registry.add("kavach_redis_connected", "Shards that are connected to Redis.", connected, labels);
  registry.add("kavach_redis_unanswered_bytes", "Bytes of commands without an answer yet.", unanswered_bytes,
               labels);
  registry.add("kavach_redis_round_trip_seconds", "From the sending of a command to its reply.", round_trip,
               labels);
}

RedisConnection::RedisConnection(Shard& shard, WorkerPool& workers, const Options& options)
    : shard_(shard),
      workers_(workers),
      options_(options),
      shown_(options.url.shown() + (options.channel.empty() ? "" : ", channel " + options.channel)),
      backoff_(shard.io().get_executor()) {
  KAVACH_CHECK(!options.url.tls || options.tls != nullptr, "TLS needs to know whom to trust");
  shard.at_end_of_turn([this] {
    if (!output_.empty() && !awaiting_write_ && state_ >= State::kGreeting) write_some();
  });
  shard.at_tick([this] { check_deadlines(); });
}

RedisConnection::~RedisConnection() = default;

void RedisConnection::set_listener(std::function<void(const std::string&)> connected,
                                   std::function<void()> disconnected) {
  connected_ = std::move(connected);
  disconnected_ = std::move(disconnected);
}

void RedisConnection::start() {
  KAVACH_CHECK(state_ == State::kStopped, "a connection is started once");
  attempt();
}

void RedisConnection::stop() {
  if (state_ == State::kReady && !output_.empty() && !awaiting_write_) write_some();
  const bool was_ready = state_ == State::kReady;
  close();
  state_ = State::kStopped;
  if (was_ready) disconnected_();
}

void RedisConnection::set_subscriber(std::function<void(std::string_view)> message) {
  message_ = std::move(message);
}

bool RedisConnection::send(std::string_view command, Callback callback) {
  KAVACH_CHECK(options_.channel.empty(), "a subscriber may not send commands");
  if (state_ != State::kReady || unanswered_bytes_ + command.size() > options_.unanswered_bytes_max) {
    metrics_.refused_commands.add();
    return false;
  }
  push(command, std::move(callback));
  return true;
}

void RedisConnection::push(std::string_view command, Callback callback) {
  output_.append(command);
  unanswered_.push_back({std::move(callback), command.size(), shard_.mono_now()});
  unanswered_bytes_ += command.size();
  metrics_.unanswered_bytes.set(static_cast<std::int64_t>(unanswered_bytes_));
  metrics_.commands.add();
}

// --- connecting --------------------------------------------------------------------------------------------

void RedisConnection::attempt() {
  ++generation_;
  attempt_until_ = shard_.mono_now() + options_.attempt_us;
  addresses_.clear();
  next_address_ = 0;
  look_up();
}

void RedisConnection::look_up() {
  state_ = State::kResolving;
  const RedisUrl& url = options_.url;
  if (!url.path.empty()) {
    addresses_.push_back(unix_address(url.path));
    return connect_next();
  }
  addresses_ = look_up_addresses(url.host, url.port, AI_NUMERICHOST).found;
  if (!addresses_.empty()) return connect_next();
  // A name server that is away may keep a worker for long: one of them, however many attempts are made
  // meanwhile.
  if (looking_up_) return;
  // The task touches nothing of this connection.
  looking_up_ = workers_.try_post([this, shard = &shard_, host = url.host, port = url.port] {
    RedisAddresses found = look_up_addresses(host, port);
    shard->post([this, found = std::move(found)] {
      looking_up_ = false;
      if (state_ != State::kResolving) return;
      addresses_ = found.found;
      if (addresses_.empty()) return fail("the host's name cannot be looked up: " + found.problem);
      connect_next();
    });
  });
  if (!looking_up_) fail("the host's name cannot be looked up: the workers are busy");
}

void RedisConnection::connect_next() {
  ++generation_;
  state_ = State::kConnecting;
  stream_.emplace(shard_.io());
  const RedisAddress& address = addresses_[next_address_++];
  after_connect(stream_->connect(address, options_.url.tls ? options_.tls : nullptr, options_.url.host));
}

void RedisConnection::after_connect(RedisStream::Outcome outcome) {
  switch (outcome) {
    case RedisStream::Outcome::kDone:
      return greet();
    case RedisStream::Outcome::kWouldRead:
    case RedisStream::Outcome::kWouldWrite:
      return await(outcome == RedisStream::Outcome::kWouldRead);
    case RedisStream::Outcome::kEnd:
    case RedisStream::Outcome::kBroken:
      break;
  }
  const std::string reason = stream_->reason();
  stream_.reset();
  if (next_address_ < addresses_.size()) return connect_next();
  fail(reason);
}

// The answers come in order; the first that is an error is the one that is told.
void RedisConnection::greet() {
  state_ = State::kGreeting;
  reader_.emplace(options_.replies);
  greeting_error_.clear();
  const auto expect_no_error = [this](std::string_view what) {
    return [this, what](const RedisReply* reply) {
      if (reply == nullptr || !reply->is_error() || !greeting_error_.empty()) return;
      greeting_error_ = fmt::format("{}: {}", what, reply->text.substr(0, kLoggedErrorMax));
    };
  };
  const RedisUrl& url = options_.url;
  if (!url.password.empty()) {
    // Only the error's code is kept: a server that does not know the command repeats its arguments.
    push(url.auth_command(), [this](const RedisReply* reply) {
      if (reply == nullptr || !reply->is_error()) return;
      greeting_error_ = fmt::format("AUTH was refused ({})", reply->error_code());
    });
  }
  if (url.db != 0) {
    push(RedisCommand().add("SELECT").add(std::int64_t{url.db}).bytes(), expect_no_error("SELECT"));
  }
  push(RedisCommand().add("PING").bytes(), expect_no_error("PING"));
  push(RedisCommand().add("INFO").add("replication").bytes(),
       [this, expect_no_error](const RedisReply* reply) {
         expect_no_error("INFO")(reply);
         if (reply != nullptr && greeting_error_.empty() && info_value(reply->text, "role") == "slave") {
           greeting_error_ = "the server is a replica";
         }
       });
  push(RedisCommand().add("INFO").add("server").bytes(), [this, expect_no_error](const RedisReply* reply) {
    if (reply == nullptr) return;
    expect_no_error("INFO")(reply);
    run_id_ = info_value(reply->text, "run_id");
    if (greeting_error_.empty() && run_id_.empty()) greeting_error_ = "INFO tells no run_id";
    if (options_.channel.empty()) on_greeted();
  });
  if (!options_.channel.empty()) {
    push(RedisCommand().add("SUBSCRIBE").add(options_.channel).bytes(),
         [this, expect_no_error](const RedisReply* reply) {
           if (reply == nullptr) return;
           expect_no_error("SUBSCRIBE")(reply);
           if (greeting_error_.empty() && !is_subscription(*reply, options_.channel)) {
             greeting_error_ = "SUBSCRIBE is answered with something else";
           }
           on_greeted();
         });
  }
  await(true);
  write_some();
}

void RedisConnection::on_greeted() {
  if (!greeting_error_.empty()) return fail(greeting_error_);
  state_ = State::kReady;
  heard_ = shard_.mono_now();
  metrics_.connected.set(1);
  metrics_.connects.add();
  logged_reason_.clear();
  greeting_error_.clear();
  log::info("redis: shard {}: connected to {}", shard_.id(), shown_);
  connected_(run_id_);
}

void RedisConnection::fail(std::string reason) {
  const bool was_ready = state_ == State::kReady;
  const std::int64_t longest =
      std::min(options_.backoff_max_us, options_.backoff_min_us << std::min<std::uint32_t>(failures_, 20));
  ++failures_;
  (was_ready ? metrics_.disconnects : metrics_.failed_attempts).add();
  if (was_ready) {
    log::warning("redis: shard {}: lost {}: {}", shard_.id(), shown_, reason);
  } else if (reason != logged_reason_) {
    log::warning("redis: shard {}: cannot connect to {}: {}; trying again", shard_.id(), shown_, reason);
    logged_reason_ = std::move(reason);
  }
  close();
  // Between half and all of it, so that shards and nodes do not come back at once.
  const auto jitter = static_cast<std::int64_t>(random_.next() % static_cast<std::uint64_t>(longest / 2 + 1));
  backoff_.expires_after(std::chrono::microseconds(longest / 2 + jitter));
  backoff_.async_wait([this, generation = generation_](const boost::system::error_code& error) {
    if (!error && generation == generation_) attempt();
  });
  if (was_ready) disconnected_();
}

// Everybody who waits for a reply is told that none comes; they see a connection that is away.
void RedisConnection::close() {
  ++generation_;
  state_ = State::kAway;
  backoff_.cancel();
  stream_.reset();
  awaiting_read_ = awaiting_write_ = false;
  output_.clear();
  written_ = 0;
  unanswered_bytes_ = 0;
  metrics_.unanswered_bytes.set(0);
  metrics_.connected.set(0);
  const std::deque<Unanswered> unanswered = std::exchange(unanswered_, {});
  for (const Unanswered& one : unanswered) one.callback(nullptr);
}

void RedisConnection::check_deadlines() {
  switch (state_) {
    case State::kStopped:
    case State::kAway:
      return;
    case State::kResolving:
    case State::kConnecting:
    case State::kGreeting:
      if (shard_.mono_now() >= attempt_until_) fail("no answer in time");
      return;
    case State::kReady:
      if (!unanswered_.empty() && shard_.mono_now() - unanswered_.front().sent >= options_.stall_us) {
        fail("no answer in time");
      } else if (!options_.channel.empty() && unanswered_.empty() &&
                 shard_.mono_now() - heard_ >= options_.ping_us) {
        ping();
      }
      return;
  }
}

// Of a subscriber, so that a server which is gone without a word is told from one that has nothing to say.
void RedisConnection::ping() {
  push(RedisCommand().add("PING").bytes(), [this](const RedisReply* reply) {
    if (reply != nullptr && !is_pong(*reply)) fail("PING is answered with something else");
  });
}

// --- bytes -------------------------------------------------------------------------------------------------

// Readiness of either kind may be what a TLS read or write waits for, so both are tried.
void RedisConnection::await(bool for_read) {
  bool& awaiting = for_read ? awaiting_read_ : awaiting_write_;
  if (awaiting) return;
  awaiting = true;
  stream_->wait(for_read, [this, for_read, generation = generation_](const boost::system::error_code& error) {
    if (error || generation != generation_) return;
    (for_read ? awaiting_read_ : awaiting_write_) = false;
    shard_.note_activity("redis");
    if (state_ == State::kConnecting) return after_connect(stream_->finish_connect());
    read_some();
    if (generation == generation_ && !output_.empty() && !awaiting_write_) write_some();
  });
}

// A read or a write did not get on.
void RedisConnection::await_or_fail(RedisStream::Outcome outcome) {
  switch (outcome) {
    case RedisStream::Outcome::kDone:
      return;
    case RedisStream::Outcome::kWouldRead:
      return await(true);
    case RedisStream::Outcome::kWouldWrite:
      return await(false);
    case RedisStream::Outcome::kEnd:
      return fail(greeting_error_.empty() ? "closed by the server" : greeting_error_);
    case RedisStream::Outcome::kBroken:
      return fail(stream_->reason());
  }
}

void RedisConnection::write_some() {
  while (written_ < output_.size()) {
    const RedisStream::Moved moved = stream_->write(output_.data() + written_, output_.size() - written_);
    if (moved.outcome != RedisStream::Outcome::kDone) return await_or_fail(moved.outcome);
    written_ += moved.bytes;
  }
  output_.clear();
  written_ = 0;
  if (output_.capacity() > kOutputKept) output_.shrink_to_fit();
}

void RedisConnection::read_some() {
  for (int i = 0; i < kReadsPerTurn; ++i) {
    const RedisStream::Moved moved = stream_->read(input_.data(), input_.size());
    if (moved.outcome != RedisStream::Outcome::kDone) return await_or_fail(moved.outcome);
    reader_->feed({input_.data(), moved.bytes});
    if (!take_replies()) return;
  }
  // TLS may hold bytes for which the descriptor is not readable any more: the next turn goes on at once.
  shard_.post([this, generation = generation_] {
    if (generation == generation_) read_some();
  });
}

// False when the connection was given up on the way, by itself or by a callback.
bool RedisConnection::take_replies() {
  const std::uint64_t generation = generation_;
  while (const std::optional<RedisReply> reply = reader_->next()) {
    heard_ = shard_.mono_now();
    if (state_ == State::kReady && !options_.channel.empty() && is_message(*reply, options_.channel)) {
      failures_ = 0;
      message_(reply->elements.back().text);
      if (generation != generation_) return false;
      continue;
    }
    if (unanswered_.empty()) {
      fail(reply->is_error() ? reply->text.substr(0, kLoggedErrorMax)
                             : "an answer that nothing had asked for");
      return false;
    }
    if (state_ == State::kReady) {
      if (is_unfit(*reply)) {
        fail(reply->text.substr(0, kLoggedErrorMax));
        return false;
      }
      failures_ = 0;
    }
    const Unanswered answered = std::move(unanswered_.front());
    unanswered_.pop_front();
    unanswered_bytes_ -= answered.bytes;
    metrics_.unanswered_bytes.set(static_cast<std::int64_t>(unanswered_bytes_));
    metrics_.replies.add();
    if (reply->is_error()) metrics_.error_replies.add();
    metrics_.round_trip.record(shard_.mono_now() - answered.sent);
    answered.callback(&*reply);
    if (generation != generation_) return false;
  }
  if (!reader_->broken()) return true;
  fail(reader_->reason());
  return false;
}

}  // namespace kavach::quota
