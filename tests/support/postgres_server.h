// A PostgreSQL of a test's own: started in a temporary folder, hurt as the test likes, gone with its scope.
// Debian: apt-get install postgresql. It refuses to run as root: then it runs as the user `postgres`.
#pragma once

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/temp_folder.h"

namespace kavach::test {

class PostgresServer {
 public:
  PostgresServer() {
    if (::geteuid() == 0) {
      const passwd* user = ::getpwnam("postgres");
      REQUIRE_MESSAGE(user != nullptr, "there is no user postgres (Debian: apt-get install postgresql)");
      user_ = user->pw_uid;
      group_ = user->pw_gid;
      REQUIRE(::chown(folder_.path().c_str(), user_, group_) == 0);
    }
    const pid_t made = spawn({tool("initdb"), "--pgdata", data(), "--username", "kavach", "--auth", "trust",
                              "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--no-instructions"});
    int status = 1;
    REQUIRE(::waitpid(made, &status, 0) == made);
    REQUIRE_MESSAGE(status == 0, log());
    start();
  }
  ~PostgresServer() { kill(); }
  PostgresServer(const PostgresServer&) = delete;
  PostgresServer& operator=(const PostgresServer&) = delete;

  // Over a Unix socket in the server's folder.
  std::string url(std::string_view database = "postgres") const {
    return fmt::format("postgres://kavach:s3cret@/{}?host={}", database, folder_.path().string());
  }

  // Returns when it takes connections.
  void start() {
    pid_ = spawn({tool("postgres"), "-D", data(), "-c", "listen_addresses=", "-c",
                  "unix_socket_directories=" + folder_.path().string(), "-c", "max_connections=50", "-c",
                  "fsync=off"});
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!is_up()) {
      REQUIRE_MESSAGE(::waitpid(pid_, nullptr, WNOHANG) == 0, log());
      REQUIRE_MESSAGE(std::chrono::steady_clock::now() < until, log());
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
  // Without a goodbye. Returns when none of its processes is left: they share memory.
  void kill() {
    if (pid_ < 0) return;
    ::kill(pid_, SIGSTOP);  // so that it has no more children
    const std::vector<pid_t> all = family();
    for (const pid_t process : all) ::kill(process, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    for (const pid_t process : all) {
      while (std::filesystem::exists(fmt::format("/proc/{}/root/", process)))
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    pid_ = -1;
    std::error_code ignored;
    std::filesystem::remove(data() + "/postmaster.pid", ignored);
  }
  // "Fast": it closes its connections.
  void stop() {
    ::kill(pid_, SIGINT);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  // It takes connections and bytes, as far as the kernel does that for it, and answers nothing.
  void pause() const {
    for (const pid_t process : family()) ::kill(process, SIGSTOP);
  }
  void resume() const {
    for (const pid_t process : family()) ::kill(process, SIGCONT);
  }

 private:
  std::string data() const { return folder_.file("data"); }
  std::string log() const {
    std::ostringstream text;
    text << std::ifstream(folder_.file("log")).rdbuf();
    return text.str();
  }

  // Debian keeps the server's programs out of PATH; the newest version there is.
  static std::string tool(const std::string& name) {
    std::vector<std::string> found;
    std::error_code ignored;
    for (const auto& version : std::filesystem::directory_iterator("/usr/lib/postgresql", ignored)) {
      const std::filesystem::path path = version.path() / "bin" / name;
      if (std::filesystem::exists(path)) found.push_back(path.string());
    }
    return found.empty() ? name : *std::max_element(found.begin(), found.end());
  }

  pid_t spawn(std::vector<std::string> words) const {
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const std::string log_file = folder_.file("log");
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child > 0) return child;
    if (user_ != 0 && (::setgroups(0, nullptr) != 0 || ::setgid(group_) != 0 || ::setuid(user_) != 0))
      ::_exit(126);
    ::prctl(PR_SET_PDEATHSIG, SIGINT);
    if (::freopen(log_file.c_str(), "a", stdout) == nullptr || ::dup2(STDOUT_FILENO, STDERR_FILENO) < 0)
      ::_exit(126);
    if (::chdir("/") != 0) ::_exit(126);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }

  // The last line of its pid file says so.
  bool is_up() const {
    std::ifstream file(data() + "/postmaster.pid");
    std::string line, last;
    while (std::getline(file, line)) last = line;
    return last.starts_with("ready");
  }

  // The server and its children, each of which has a process group of its own.
  std::vector<pid_t> family() const {
    std::vector<pid_t> pids{pid_};
    std::ifstream children(fmt::format("/proc/{0}/task/{0}/children", pid_));
    for (pid_t child = 0; children >> child;) pids.push_back(child);
    return pids;
  }

  TempFolder folder_{memory()};
  uid_t user_ = 0;
  gid_t group_ = 0;
  pid_t pid_ = -1;
};

}  // namespace kavach::test
