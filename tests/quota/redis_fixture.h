// A RedisConnection on a shard that runs, and a server that answers what a test wants.
#pragma once

#include <doctest/doctest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <future>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/shard.h"
#include "engine/worker_pool.h"
#include "quota/redis/connection.h"
#include "tests/support/temp_folder.h"

namespace kavach::quota {

// Ends the test instead of hanging when what it waits for never comes.
inline bool eventually(const std::function<bool()>& condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

// What became of a command; written once by the shard.
struct Outcome {
  std::atomic<int> calls{0};
  bool lost = false;
  RedisReply reply;

  RedisConnection::Callback callback() {
    return [this](const RedisReply* got) {
      lost = got == nullptr;
      if (got != nullptr) reply = *got;
      calls.fetch_add(1);
    };
  }
  bool done() const { return calls.load() > 0; }
};

class Loop {
 public:
  static RedisConnection::Options options(const std::string& url) {
    const auto parsed = RedisUrl::parse(url);
    REQUIRE_MESSAGE(parsed.has_value(), parsed.error().message);
    RedisConnection::Options options;
    options.url = *parsed;
    return options;
  }
  explicit Loop(const std::string& url) : Loop(options(url)) {}
  explicit Loop(const RedisConnection::Options& options) : connection(runtime.shard(0), workers, options) {
    ::signal(SIGPIPE, SIG_IGN);
    connection.set_listener(
        [this](const std::string& id) {
          {
            const std::lock_guard lock(mutex_);
            run_id_ = id;
          }
          connects.fetch_add(1);
        },
        [this] { disconnects.fetch_add(1); });
  }
  ~Loop() { stop(); }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  Loop& start() {
    runtime.start();
    started_ = true;
    run([this] { connection.start(); });
    return *this;
  }
  // Earlier than the end of its scope, for what listens to the connection.
  void stop() {
    if (!std::exchange(started_, false)) return;
    run([this] { connection.stop(); });
    runtime.stop();
  }
  Loop& start_ready() {
    start();
    REQUIRE(eventually([&] { return connects.load() > 0; }));
    return *this;
  }

  // On the shard, to its end.
  void run(const std::function<void()>& task) {
    std::promise<void> done;
    runtime.shard(0).post([&] {
      task();
      done.set_value();
    });
    REQUIRE(done.get_future().wait_for(std::chrono::seconds(60)) == std::future_status::ready);
  }
  bool send(const std::string& command, Outcome& outcome) {
    bool taken = false;
    run([&] { taken = connection.send(command, outcome.callback()); });
    return taken;
  }
  // The reply; nullopt when there was none.
  template <typename... Arguments>
  std::optional<RedisReply> ask(const Arguments&... arguments) {
    RedisCommand command;
    (command.add(std::string_view(arguments)), ...);
    Outcome outcome;
    if (!send(command.bytes(), outcome)) return std::nullopt;
    REQUIRE(eventually([&] { return outcome.done(); }));
    if (outcome.lost) return std::nullopt;
    return outcome.reply;
  }
  std::string run_id() const {
    const std::lock_guard lock(mutex_);
    return run_id_;
  }

  Runtime runtime{{.shards = 1}};
  WorkerPool workers{{.name = "test", .threads = 1}};
  RedisConnection connection;
  std::atomic<int> connects{0};
  std::atomic<int> disconnects{0};

 private:
  bool started_ = false;
  mutable std::mutex mutex_;
  std::string run_id_;
};

// A server on a Unix socket whose `serve` is called for one connection after the other, with its descriptor.
class FakeServer {
 public:
  explicit FakeServer(std::function<void(int fd)> serve) : serve_(std::move(serve)) {
    listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    const std::string path = folder_.file("fake.sock");
    REQUIRE(path.size() < sizeof(name.sun_path));
    std::memcpy(name.sun_path, path.c_str(), path.size() + 1);
    REQUIRE(::bind(listener_, reinterpret_cast<const sockaddr*>(&name), sizeof(name)) == 0);
    REQUIRE(::listen(listener_, 16) == 0);
    thread_ = std::thread([this] { run(); });
  }
  ~FakeServer() {
    stopping_ = true;
    thread_.join();
    ::close(listener_);
  }
  FakeServer(const FakeServer&) = delete;
  FakeServer& operator=(const FakeServer&) = delete;

  std::string url() const { return "unix://" + folder_.file("fake.sock"); }
  int connections() const { return connections_.load(); }

  static void say(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return;
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
  }
  // Everything up to and including `ending`; what was read so far when the peer has closed.
  static std::string hear(int fd, std::string_view ending) {
    std::string heard;
    char buffer[4096];
    while (!heard.ends_with(ending)) {
      const ssize_t n = ::recv(fd, buffer, sizeof(buffer), 0);
      if (n <= 0) break;
      heard.append(buffer, static_cast<std::size_t>(n));
    }
    return heard;
  }
  static constexpr std::string_view kInfo = "*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n";
  static constexpr std::string_view kGreeting =
      "+PONG\r\n$13\r\nrole:master\r\n\r\n$13\r\nrun_id:fake\r\n\r\n";
  // Until the peer has closed.
  static void hear_all(int fd) { hear(fd, std::string_view("\0never", 6)); }
  // Answers PING and the two INFOs of a greeting without AUTH and SELECT.
  static void greet(int fd) {
    hear(fd, kInfo);
    say(fd, kGreeting);
  }

 private:
  void run() {
    while (!stopping_) {
      pollfd readable{listener_, POLLIN, 0};
      if (::poll(&readable, 1, 10) != 1) continue;
      const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) continue;
      connections_.fetch_add(1);
      serve_(fd);
      ::close(fd);
    }
  }

  test::TempFolder folder_;
  std::function<void(int)> serve_;
  int listener_ = -1;
  std::atomic<int> connections_{0};
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace kavach::quota
