#include "quota/redis/announce.h"

#include <fmt/format.h>

#include <array>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <future>
#include <optional>
#include <thread>
#include <utility>

#include "engine/check.h"
#include "quota/redis/address.h"
#include "quota/redis/reply.h"

namespace kavach::quota {
namespace {

using Deadline = std::chrono::steady_clock::time_point;

constexpr std::string_view kLate = "no answer in time";
// What changed; for whoever looks at the channel.
constexpr std::string_view kMessage = "directory";
// The answers are one status and one number.
constexpr RedisReplyReader::Options kReplies{.reply_bytes_max = 4096, .elements_max = 1};

// One connection, used from top to bottom by a thread that waits for it.
class Exchange {
 public:
  explicit Exchange(Deadline deadline) : deadline_(deadline) {}

  Status connect(const RedisAddress& address, const Announcement& announcement) {
    auto outcome = stream_.connect(address, announcement.tls, announcement.url.host);
    while (outcome != RedisStream::Outcome::kDone) {
      if (Status waited = wait_for(outcome); !waited) return waited;
      outcome = stream_.finish_connect();
    }
    return {};
  }

  Status write(std::string_view bytes) {
    while (!bytes.empty()) {
      const RedisStream::Moved moved = stream_.write(bytes.data(), bytes.size());
      bytes.remove_prefix(moved.bytes);
      if (moved.outcome == RedisStream::Outcome::kDone) continue;
      if (Status waited = wait_for(moved.outcome); !waited) return waited;
    }
    return {};
  }

  Result<RedisReply> read() {
    for (;;) {
      if (auto reply = reader_.next()) return *std::move(reply);
      if (reader_.broken()) return failure(reader_.reason());
      std::array<char, 1024> input;
      const RedisStream::Moved moved = stream_.read(input.data(), input.size());
      if (moved.outcome == RedisStream::Outcome::kDone) {
        reader_.feed({input.data(), moved.bytes});
      } else if (Status waited = wait_for(moved.outcome); !waited) {
        return waited.error();
      }
    }
  }

 private:
  // Until `outcome` may have become another one.
  Status wait_for(RedisStream::Outcome outcome) {
    if (outcome == RedisStream::Outcome::kEnd) return failure("closed by the server");
    if (outcome == RedisStream::Outcome::kBroken) return failure(stream_.reason());
    bool ready = false;
    stream_.wait(outcome == RedisStream::Outcome::kWouldRead,
                 [&ready](const boost::system::error_code&) { ready = true; });
    io_.restart();
    // What it runs may also be an event that nobody waits for any more.
    while (!ready && io_.run_one_until(deadline_) > 0) continue;
    // A handler that was not called is destroyed with io_, after the last use of `ready`.
    if (!ready) return failure(std::string(kLate));
    return {};
  }

  const Deadline deadline_;
  boost::asio::io_context io_;
  RedisStream stream_{io_};
  RedisReplyReader reader_{kReplies};
};

Result<std::vector<RedisAddress>> addresses_of(const RedisUrl& url, Deadline deadline) {
  if (!url.path.empty()) return std::vector{unix_address(url.path)};
  // getaddrinfo() cannot be told when to give up, so it has a thread that nobody joins.
  std::promise<RedisAddresses> promise;
  std::future<RedisAddresses> looked_up = promise.get_future();
  std::thread([promise = std::move(promise), host = url.host, port = url.port]() mutable {
    promise.set_value(look_up_addresses(host, port));
  }).detach();
  if (looked_up.wait_until(deadline) != std::future_status::ready) {
    return failure("the host's name cannot be looked up in time");
  }
  RedisAddresses addresses = looked_up.get();
  if (!addresses.found.empty()) return std::move(addresses.found);
  return failure("the host's name cannot be looked up: " + addresses.problem);
}

// `what` was refused; only the error's code is told, since servers repeat arguments.
Failure refused(std::string_view what, const RedisReply& reply) {
  return failure(fmt::format("{} was refused ({})", what, reply.error_code()));
}

Status publish(Exchange& exchange, const Announcement& announcement) {
  const bool logs_in = !announcement.url.password.empty();
  std::string commands = logs_in ? announcement.url.auth_command() : std::string();
  commands += RedisCommand().add("PUBLISH").add(change_channel(announcement.prefix)).add(kMessage).bytes();
  if (Status written = exchange.write(commands); !written) return written;
  if (logs_in) {
    const auto reply = exchange.read();
    if (!reply) return reply.error();
    if (reply->is_error()) return refused("AUTH", *reply);
  }
  const auto reply = exchange.read();
  if (!reply) return reply.error();
  if (reply->is_error()) return refused("PUBLISH", *reply);
  if (reply->kind != RedisReply::Kind::kInteger) return failure("PUBLISH is answered with something else");
  return {};
}

}  // namespace

std::string change_channel(std::string_view prefix) {
  return std::string(prefix) + "changes";
}

Status announce_change(const Announcement& announcement) {
  KAVACH_CHECK(!announcement.url.tls || announcement.tls != nullptr, "TLS needs to know whom to trust");
  const Deadline deadline =
      std::chrono::steady_clock::now() + std::chrono::microseconds(announcement.patience_us);
  const auto addresses = addresses_of(announcement.url, deadline);
  if (!addresses) return addresses.error();
  Status connected;
  for (const RedisAddress& address : *addresses) {
    Exchange exchange(deadline);
    connected = exchange.connect(address, announcement);
    if (connected) return publish(exchange, announcement);
  }
  return connected;
}

}  // namespace kavach::quota
