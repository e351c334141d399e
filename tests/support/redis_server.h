// A redis-server of a test's own: started in a temporary folder, hurt as the test likes, gone with its scope;
// and the simplest client that can talk to it.
#pragma once

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "quota/redis/reply.h"
#include "tests/support/temp_folder.h"

namespace kavach::test {

// Blocks; one command at a time. Ends the test when the server does not answer.
class RedisClient {
 public:
  explicit RedisClient(const std::string& socket_path) : reader_({}) {
    fd_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    REQUIRE(socket_path.size() < sizeof(name.sun_path));
    std::memcpy(name.sun_path, socket_path.c_str(), socket_path.size() + 1);
    connected_ = ::connect(fd_, reinterpret_cast<const sockaddr*>(&name), sizeof(name)) == 0;
  }
  ~RedisClient() { ::close(fd_); }
  RedisClient(const RedisClient&) = delete;
  RedisClient& operator=(const RedisClient&) = delete;

  bool connected() const { return connected_; }

  quota::RedisReply send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      REQUIRE(n > 0);
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    for (;;) {
      if (auto reply = reader_.next()) return *std::move(reply);
      REQUIRE_FALSE(reader_.broken());
      pollfd readable{fd_, POLLIN, 0};
      REQUIRE(::poll(&readable, 1, 60'000) == 1);
      char buffer[16384];
      const ssize_t n = ::recv(fd_, buffer, sizeof(buffer), 0);
      REQUIRE(n > 0);
      reader_.feed({buffer, static_cast<std::size_t>(n)});
    }
  }

  template <typename... Arguments>
  quota::RedisReply operator()(const Arguments&... arguments) {
    quota::RedisCommand command;
    (command.add(std::string_view(arguments)), ...);
    return send(command.bytes());
  }

 private:
  int fd_ = -1;
  bool connected_ = false;
  quota::RedisReplyReader reader_;
};

class RedisServer {
 public:
  // `arguments` in the form of redis-server's command line: {"--requirepass", "secret"}.
  explicit RedisServer(std::vector<std::string> arguments = {}) : arguments_(std::move(arguments)) {
    start();
  }
  ~RedisServer() { kill(); }
  RedisServer(const RedisServer&) = delete;
  RedisServer& operator=(const RedisServer&) = delete;

  std::string socket_path() const { return folder_.file("redis.sock"); }
  std::string unix_url() const { return "unix://" + socket_path(); }
  // The same after a restart.
  std::uint16_t port() const { return port_; }
  std::string folder_file(std::string_view name) const { return folder_.file(name); }

  // Without a goodbye.
  void kill() {
    if (pid_ < 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
    ::unlink(socket_path().c_str());
  }
  void pause() const { REQUIRE(::kill(pid_, SIGSTOP) == 0); }
  void resume() const { REQUIRE(::kill(pid_, SIGCONT) == 0); }

  // Returns when it takes connections.
  void start() {
    // A port that was free may be taken by another process before the server has it: then another one.
    for (int attempt = 0; attempt < 5; ++attempt) {
      if (port_ == 0) port_ = free_port();
      spawn();
      if (is_up()) return;
      port_ = 0;
    }
    FAIL("redis-server does not start (Debian: apt-get install redis-server)");
  }

  static std::uint16_t free_port() {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    REQUIRE(::bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0);
    REQUIRE(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    ::close(fd);
    return ntohs(address.sin_port);
  }

 private:
  void spawn() {
    std::vector<std::string> words{"redis-server", "--port",    std::to_string(port_),
                                   "--bind",       "127.0.0.1", "--unixsocket",
                                   socket_path(),  "--save",    "",
                                   "--appendonly", "no",        "--dir",
                                   folder_.path(), "--logfile", folder_.file("log"),
                                   "--daemonize",  "no"};
    words.insert(words.end(), arguments_.begin(), arguments_.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    REQUIRE(pid_ >= 0);
    if (pid_ > 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }

  bool is_up() {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (std::chrono::steady_clock::now() < until) {
      if (::waitpid(pid_, nullptr, WNOHANG) != 0) break;
      if (RedisClient(socket_path()).connected()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    pid_ = -1;
    return false;
  }

  TempFolder folder_;
  std::vector<std::string> arguments_;
  std::uint16_t port_ = 0;
  pid_t pid_ = -1;
};

}  // namespace kavach::test
