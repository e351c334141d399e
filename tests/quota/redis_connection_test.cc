// RedisConnection against a real redis-server, which is killed, stopped and started again, and against
// servers that answer what no Redis would: every command that was taken is answered or lost, exactly once.
#include "quota/redis/connection.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "tests/quota/redis_fixture.h"
#include "tests/support/certificates.h"
#include "tests/support/redis_server.h"

namespace kavach::quota {
namespace {

std::string echo(const std::string& text) {
  return RedisCommand().add("ECHO").add(text).bytes();
}

// What was written to stderr while it lives.
class CapturedStderr {
 public:
  CapturedStderr() : path_(folder_.file("stderr")), stderr_(::dup(STDERR_FILENO)) {
    std::FILE* file = std::fopen(path_.c_str(), "w");
    REQUIRE(file != nullptr);
    REQUIRE(::dup2(::fileno(file), STDERR_FILENO) == STDERR_FILENO);
    std::fclose(file);
  }
  ~CapturedStderr() {
    ::dup2(stderr_, STDERR_FILENO);
    ::close(stderr_);
  }
  CapturedStderr(const CapturedStderr&) = delete;
  CapturedStderr& operator=(const CapturedStderr&) = delete;

  std::string text() const {
    std::ifstream file(path_);
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  test::TempFolder folder_;
  std::string path_;
  int stderr_;
};

std::size_t lines_with(const std::string& text, std::string_view part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST_CASE("many commands of one turn are answered in order, each once") {
  test::RedisServer server;
  Loop loop(server.unix_url());
  loop.start_ready();
  CHECK(loop.run_id().size() == 40);
  std::deque<Outcome> outcomes(5'000);
  bool all_taken = true;
  loop.run([&] {
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
      all_taken &= loop.connection.send(echo(std::to_string(i)), outcomes[i].callback());
    }
    // Nothing is answered from within send().
    for (const Outcome& outcome : outcomes) all_taken &= !outcome.done();
  });
  CHECK(all_taken);
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    REQUIRE(eventually([&] { return outcomes[i].done(); }));
    CHECK(outcomes[i].reply.text == std::to_string(i));
  }
  loop.run([] {});
  for (const Outcome& outcome : outcomes) CHECK(outcome.calls.load() == 1);
  CHECK(loop.connection.metrics().unanswered_bytes.value() == 0);
}

TEST_CASE("commands and replies of megabytes go through, over every way in") {
  test::RedisServer server;
  const std::string large(3 << 20, 'x');
  for (const std::string& url :
       {server.unix_url(), "redis://127.0.0.1:" + std::to_string(server.port()),
        // A name is looked up on the workers; the server listens on only one of its addresses.
        "redis://localhost:" + std::to_string(server.port())}) {
    CAPTURE(url);
    Loop loop(url);
    loop.start_ready();
    const auto reply = loop.ask("ECHO", large);
    REQUIRE(reply.has_value());
    CHECK(reply->text == large);
  }
}

TEST_CASE("replies that arrive byte by byte are put together") {
  FakeServer server([](int fd) {
    FakeServer::hear(fd, FakeServer::kInfo);
    for (const char byte : std::string("+PONG\r\n$13\r\nrole:master\r\n\r\n$13\r\nrun_id:fake\r\n\r\n")) {
      FakeServer::say(fd, {&byte, 1});
    }
    FakeServer::hear(fd, "two\r\n");
    for (const char byte : std::string("$3\r\none\r\n*2\r\n:2\r\n$-1\r\n")) FakeServer::say(fd, {&byte, 1});
    FakeServer::hear_all(fd);
  });
  Loop loop(server.url());
  loop.start_ready();
  CHECK(loop.run_id() == "fake");
  Outcome one;
  Outcome two;
  loop.run([&] {
    if (!loop.connection.send(echo("one"), one.callback())) one.lost = true;
    if (!loop.connection.send(echo("two"), two.callback())) two.lost = true;
  });
  REQUIRE(eventually([&] { return two.done(); }));
  CHECK_FALSE(one.lost);
  CHECK(one.reply.text == "one");
  CHECK(two.reply.elements.size() == 2);
}

TEST_CASE("the password and the database of the URL are used") {
  test::RedisServer server({"--requirepass", "s3cret"});
  Loop with_password("unix://:s3cret@" + server.socket_path() + "?db=3");
  with_password.start_ready();
  const auto client = with_password.ask("CLIENT", "INFO");
  REQUIRE(client.has_value());
  CHECK(client->text.find(" db=3 ") != std::string::npos);

  CHECK(with_password.ask("ACL", "SETUSER", "kavach", "on", ">w0rd", "+@all", "~*")->text == "OK");
  Loop with_user("redis://kavach:w0rd@127.0.0.1:" + std::to_string(server.port()));
  with_user.start_ready();
  CHECK(with_user.ask("ACL", "WHOAMI")->text == "kavach");
}

TEST_CASE("a refused password or database keeps the connection away, is logged once and not told") {
  test::RedisServer server({"--requirepass", "s3cret"});
  const CapturedStderr captured;
  for (const std::string& url : {"unix://:wr0ng@" + server.socket_path(), "unix://" + server.socket_path(),
                                 "unix://:s3cret@" + server.socket_path() + "?db=99"}) {
    Loop loop(url);
    loop.start();
    CHECK(eventually([&] { return loop.connection.metrics().failed_attempts.value() >= 3; }));
    CHECK(loop.connects.load() == 0);
    CHECK_FALSE(loop.ask("PING").has_value());
  }
  const std::string log = captured.text();
  CHECK(lines_with(log, "AUTH was refused (WRONGPASS)") == 1);
  CHECK(lines_with(log, "NOAUTH") == 1);
  CHECK(lines_with(log, "SELECT: ERR DB index is out of range") == 1);
  CHECK(log.find("wr0ng") == std::string::npos);
  CHECK(log.find("s3cret") == std::string::npos);
}

TEST_CASE("a server that repeats the password in its error does not get it into the log") {
  FakeServer server([](int fd) {
    FakeServer::hear(fd, FakeServer::kInfo);
    FakeServer::say(fd, "-ERR unknown command `AUTH`, with args beginning with: `s3cret`\r\n+PONG\r\n");
    FakeServer::say(fd, "$13\r\nrole:master\r\n\r\n$13\r\nrun_id:fake\r\n\r\n");
    FakeServer::hear_all(fd);
  });
  const CapturedStderr captured;
  RedisConnection::Options options = Loop::options(server.url());
  options.url.password = "s3cret";
  Loop loop(options);
  loop.start();
  REQUIRE(eventually([&] { return loop.connection.metrics().failed_attempts.value() >= 1; }));
  CHECK(captured.text().find("AUTH was refused (ERR)") != std::string::npos);
  CHECK(captured.text().find("s3cret") == std::string::npos);
}

TEST_CASE("over TLS a server is spoken to that the authority vouches for under its name, and no other") {
  const test::Certificates certificates;
  const std::uint16_t port = test::RedisServer::free_port();
  test::RedisServer server({"--tls-port", std::to_string(port), "--tls-cert-file",
                            certificates.folder.file("server.pem"), "--tls-key-file",
                            certificates.folder.file("server.key"), "--tls-auth-clients", "no"});
  const auto options = [&](const std::string& host, const std::string& authority) {
    RedisConnection::Options made = Loop::options("rediss://" + host + ":" + std::to_string(port));
    const auto tls = RedisTls::load(certificates.folder.file(authority));
    REQUIRE_MESSAGE(tls.has_value(), tls.error().message);
    made.tls = *tls;
    return made;
  };
  {
    Loop loop(options("localhost", "ca.pem"));
    loop.start_ready();
    const std::string large(2 << 20, 'x');
    CHECK(loop.ask("ECHO", large)->text == large);
    CHECK(loop.ask("ECHO", "again")->text == "again");
  }
  const CapturedStderr captured;
  {
    Loop other_name(options("127.0.0.1", "ca.pem"));
    other_name.start();
    CHECK(eventually([&] { return other_name.connection.metrics().failed_attempts.value() >= 2; }));
    CHECK(other_name.connects.load() == 0);
  }
  CHECK(lines_with(captured.text(), "certificate: IP address mismatch") == 1);
  {
    Loop other_authority(options("localhost", "other_ca.pem"));
    other_authority.start();
    CHECK(eventually([&] { return other_authority.connection.metrics().failed_attempts.value() >= 2; }));
    CHECK(other_authority.connects.load() == 0);
  }
  CHECK_FALSE(RedisTls::load(certificates.folder.file("no.pem")).has_value());
  CHECK_FALSE(RedisTls::load(certificates.folder.file("server.key")).has_value());
  // A server that speaks no TLS.
  RedisConnection::Options plain = options("localhost", "ca.pem");
  plain.url.port = server.port();
  plain.attempt_us = 500 * kMicrosPerMilli;
  Loop to_plain(plain);
  to_plain.start();
  CHECK(eventually([&] { return to_plain.connection.metrics().failed_attempts.value() >= 1; }));
  CHECK(to_plain.connects.load() == 0);
}

TEST_CASE("a server that is killed is lost once, and found again as another run") {
  test::RedisServer server;
  const CapturedStderr captured;
  Loop loop("redis://127.0.0.1:" + std::to_string(server.port()));
  loop.start_ready();
  const std::string first_run = loop.run_id();
  // It is not running when the command comes, so that nobody answers it.
  server.pause();
  Outcome under_way;
  CHECK(loop.send(echo("x"), under_way));
  server.kill();
  REQUIRE(eventually([&] { return loop.disconnects.load() > 0; }));
  CHECK(under_way.calls.load() == 1);
  CHECK(under_way.lost);
  CHECK_FALSE(loop.ask("PING").has_value());
  REQUIRE(eventually([&] { return loop.connection.metrics().failed_attempts.value() >= 3; }));
  CHECK(loop.disconnects.load() == 1);
  CHECK(loop.connects.load() == 1);

  server.start();
  REQUIRE(eventually([&] { return loop.connects.load() == 2; }));
  CHECK(loop.run_id() != first_run);
  CHECK(loop.ask("ECHO", "again")->text == "again");
  // Told once per change, however many attempts were made.
  CHECK(lines_with(captured.text(), "connected to redis://") == 2);
  CHECK(lines_with(captured.text(), ": lost redis://") == 1);
  CHECK(lines_with(captured.text(), "Connection refused; trying again") == 1);
}

// Sends until nothing more is taken.
std::size_t fill(Loop& loop, std::deque<Outcome>& outcomes, const std::string& command) {
  std::size_t taken = 0;
  loop.run([&] {
    while (loop.connection.send(command, outcomes.emplace_back().callback())) ++taken;
  });
  outcomes.pop_back();
  return taken;
}

TEST_CASE("a stopped server costs bounded memory and no turn, and answers everything when it goes on") {
  test::RedisServer server;
  RedisConnection::Options options = Loop::options(server.unix_url());
  options.unanswered_bytes_max = 4 << 20;
  options.stall_us = kMicrosPerHour;
  Loop loop(options);
  loop.start_ready();
  server.pause();
  const std::string command = echo(std::string(1'000, 'x'));
  std::deque<Outcome> outcomes;
  std::size_t taken = fill(loop, outcomes, command);
  CHECK(taken == options.unanswered_bytes_max / command.size());
  // The loop turns, and the bound stays one however often it is tried.
  for (int i = 0; i < 100; ++i) taken += fill(loop, outcomes, command);
  CHECK(taken == options.unanswered_bytes_max / command.size());
  CHECK(loop.connection.metrics().unanswered_bytes.value() <=
        static_cast<std::int64_t>(options.unanswered_bytes_max));
  CHECK(loop.connection.metrics().refused_commands.value() == 101);
  for (const Outcome& outcome : outcomes) CHECK_FALSE(outcome.done());

  server.resume();
  for (const Outcome& outcome : outcomes) REQUIRE(eventually([&] { return outcome.done(); }));
  loop.run([] {});
  for (const Outcome& outcome : outcomes) {
    CHECK(outcome.calls.load() == 1);
    CHECK_FALSE(outcome.lost);
  }
  CHECK(loop.disconnects.load() == 0);
}

TEST_CASE("a server that does not answer is given up after a while, and taken again when it does") {
  test::RedisServer server;
  RedisConnection::Options options = Loop::options("redis://127.0.0.1:" + std::to_string(server.port()));
  options.stall_us = options.attempt_us = 300 * kMicrosPerMilli;
  Loop loop(options);
  loop.start_ready();
  server.pause();
  Outcome lost;
  CHECK(loop.send(echo("x"), lost));
  REQUIRE(eventually([&] { return loop.disconnects.load() == 1; }));
  CHECK(lost.calls.load() == 1);
  CHECK(lost.lost);
  // The kernel still takes connections for it, so attempts end by time.
  REQUIRE(eventually([&] { return loop.connection.metrics().failed_attempts.value() >= 2; }));
  CHECK(loop.connects.load() == 1);
  server.resume();
  REQUIRE(eventually([&] { return loop.connects.load() == 2; }));
  CHECK(loop.ask("ECHO", "again")->text == "again");
}

TEST_CASE("an answer that is no RESP2, too long, too wide or unasked for ends the connection") {
  for (const std::string& bytes :
       {std::string("HTTP/1.1 400 Bad Request\r\n\r\n"), "$100000000\r\n" + std::string(100'000, 'x'),
        std::string("*1000000000\r\n"), std::string("+one\r\n+two, which nobody asked for\r\n")}) {
    CAPTURE(bytes.substr(0, 20));
    FakeServer server([&](int fd) {
      FakeServer::greet(fd);
      FakeServer::hear(fd, "$1\r\nx\r\n");
      FakeServer::say(fd, bytes);
      FakeServer::hear_all(fd);
    });
    RedisConnection::Options options = Loop::options(server.url());
    options.replies.reply_bytes_max = 64 << 10;
    Loop loop(options);
    loop.start_ready();
    Outcome outcome;
    loop.run([&] {
      if (!loop.connection.send(echo("x"), outcome.callback())) outcome.calls = 100;
    });
    CHECK(eventually([&] { return loop.disconnects.load() >= 1; }));
    CHECK(outcome.calls.load() == 1);
    CHECK(outcome.lost == !bytes.starts_with("+one"));
  }
}

TEST_CASE("a server that is loading, a replica or without a run's id is not asked") {
  const std::string answers[] = {
      "-LOADING Redis is loading the dataset in "
      "memory\r\n$13\r\nrole:master\r\n\r\n$13\r\nrun_id:fake\r\n\r\n",
      "+PONG\r\n$12\r\nrole:slave\r\n\r\n$13\r\nrun_id:fake\r\n\r\n",
      "+PONG\r\n$13\r\nrole:master\r\n\r\n$4\r\n# no\r\n",
  };
  for (const std::string& answer : answers) {
    CAPTURE(answer);
    std::atomic<bool> is_fit{false};
    FakeServer server([&](int fd) {
      if (is_fit) {
        FakeServer::greet(fd);
      } else {
        FakeServer::hear(fd, FakeServer::kInfo);
        FakeServer::say(fd, answer);
      }
      FakeServer::hear_all(fd);
    });
    Loop loop(server.url());
    loop.start();
    REQUIRE(eventually([&] { return loop.connection.metrics().failed_attempts.value() >= 2; }));
    CHECK(loop.connects.load() == 0);
    is_fit = true;
    CHECK(eventually([&] { return loop.connects.load() == 1; }));
  }
}

TEST_CASE("a master that becomes a replica is left, and taken again when it is master") {
  test::RedisServer server;
  test::RedisClient admin(server.socket_path());
  Loop loop(server.unix_url());
  loop.start_ready();
  CHECK(admin("REPLICAOF", "127.0.0.1", "1").text == "OK");
  CHECK_FALSE(loop.ask("SET", "a", "b").has_value());
  REQUIRE(eventually([&] { return loop.connection.metrics().failed_attempts.value() >= 1; }));
  CHECK(loop.connects.load() == 1);
  CHECK(admin("REPLICAOF", "NO", "ONE").text == "OK");
  REQUIRE(eventually([&] { return loop.connects.load() == 2; }));
  CHECK(loop.ask("SET", "a", "b")->text == "OK");
}

TEST_CASE("a name that nobody knows is an attempt that failed") {
  Loop loop("redis://no-such-host.invalid:6379");
  loop.start();
  CHECK(eventually([&] { return loop.connection.metrics().failed_attempts.value() >= 1; }));
  CHECK(loop.connects.load() == 0);
}

TEST_CASE("after stop() what was sent has left, who waits is told, and nothing is tried again") {
  test::RedisServer server;
  test::RedisClient client(server.socket_path());
  Loop loop(server.unix_url());
  loop.start_ready();
  Outcome outcome;
  loop.run([&] {
    if (!loop.connection.send(RedisCommand().add("SET").add("last").add("word").bytes(),
                              outcome.callback())) {
      outcome.calls = 100;
    }
    loop.connection.stop();
  });
  CHECK(outcome.calls.load() == 1);
  CHECK(outcome.lost);
  CHECK(loop.disconnects.load() == 1);
  CHECK(eventually([&] { return client("GET", "last").text == "word"; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  CHECK(loop.connects.load() == 1);
  CHECK_FALSE(loop.ask("PING").has_value());
}

}  // namespace
}  // namespace kavach::quota
