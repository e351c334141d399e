// A real Apache Kafka broker of a test's own, as scripts/kafka/broker starts it: in a temporary folder, hurt
// as the test likes, gone with its scope. Topics appear by themselves, with four partitions.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/redis_server.h"
#include "tests/support/temp_folder.h"

namespace kavach::test {

class KafkaBroker {
 public:
  // `root` is the repository's, with the jars fetched (scripts/setup --tests).
  explicit KafkaBroker(std::string root) : root_(std::move(root)) { start(); }
  ~KafkaBroker() { kill(); }
  KafkaBroker(const KafkaBroker&) = delete;
  KafkaBroker& operator=(const KafkaBroker&) = delete;

  // The same after a restart, as are its data.
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  // Without a goodbye.
  void kill() {
    if (pid_ < 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  void pause() const { REQUIRE(::kill(pid_, SIGSTOP) == 0); }
  void resume() const { REQUIRE(::kill(pid_, SIGCONT) == 0); }

  // Who asks it at once is answered when it is ready: clients try again.
  void start() {
    std::vector<std::string> words{root_ + "/scripts/kafka/broker",
                                   folder_.path(),
                                   std::to_string(port_),
                                   std::to_string(controller_port_),
                                   "auto.create.topics.enable=true",
                                   "num.partitions=4"};
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const std::string log = folder_.file("log");
    pid_ = ::fork();
    REQUIRE(pid_ >= 0);
    if (pid_ > 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int output = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    ::dup2(output, STDOUT_FILENO);
    ::dup2(output, STDERR_FILENO);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }

 private:
  const std::string root_;
  TempFolder folder_;
  const std::uint16_t port_ = RedisServer::free_port();
  const std::uint16_t controller_port_ = RedisServer::free_port();
  pid_t pid_ = -1;
};

}  // namespace kavach::test
