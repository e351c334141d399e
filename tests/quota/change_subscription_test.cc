// ChangeSubscription and announce_change() against a real redis-server, which is killed, stopped and started
// again, and against servers that answer what no Redis would: every announcement to a subscriber is heard,
// and every new subscription counts as one.
#include "quota/redis/change_subscription.h"

#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <vector>

#include "quota/redis/announce.h"
#include "tests/quota/redis_fixture.h"
#include "tests/support/certificates.h"
#include "tests/support/redis_server.h"

namespace kavach::quota {
namespace {

RedisUrl url_of(const std::string& text) {
  const auto url = RedisUrl::parse(text);
  REQUIRE_MESSAGE(url.has_value(), url.error().message);
  return *url;
}

// A subscription on a shard that runs, and how often it has told of a change.
class Ear {
 public:
  static ChangeSubscription::Options options(const std::string& url) {
    return {.url = url_of(url), .tls = nullptr, .prefix = "test:"};
  }
  explicit Ear(const std::string& url) : Ear(options(url)) {}
  explicit Ear(const ChangeSubscription::Options& options)
      : subscription(runtime.shard(0), workers, options, [this] { changes.fetch_add(1); }) {
    ::signal(SIGPIPE, SIG_IGN);
    runtime.start();
    runtime.shard(0).post([this] { subscription.start(); });
  }
  ~Ear() {
    std::promise<void> stopped;
    runtime.shard(0).post([&] {
      subscription.stop();
      stopped.set_value();
    });
    stopped.get_future().wait();
    runtime.stop();
  }
  Ear(const Ear&) = delete;
  Ear& operator=(const Ear&) = delete;

  bool subscribes(std::uint64_t times = 1) {
    return eventually([&] { return subscription.subscriptions() >= times; });
  }
  bool hears(int count) {
    return eventually([&] { return changes.load() >= count; });
  }

  Runtime runtime{{.shards = 1}};
  WorkerPool workers{{.name = "test", .threads = 1}};
  std::atomic<int> changes{0};
  ChangeSubscription subscription;
};

Announcement announcement(const std::string& url) {
  return {.url = url_of(url), .tls = nullptr, .prefix = "test:", .patience_us = 20 * kMicrosPerSecond};
}

void announce(const std::string& url) {
  const Status announced = announce_change(announcement(url));
  REQUIRE_MESSAGE(announced.has_value(), announced.error().message);
}

std::string failure_of(const Announcement& one) {
  const Status announced = announce_change(one);
  return announced ? "none" : announced.error().message;
}

TEST_CASE("what is announced is heard, each once, over every way in and in any database") {
  test::RedisServer server({"--requirepass", "s3cret"});
  const std::string port = std::to_string(server.port());
  Ear ear("redis://:s3cret@127.0.0.1:" + port + "/3");
  REQUIRE(ear.hears(1));
  int heard = 1;
  for (const std::string& url : {"redis://:s3cret@127.0.0.1:" + port, "redis://:s3cret@localhost:" + port,
                                 "unix://:s3cret@" + server.socket_path() + "?db=5"}) {
    CAPTURE(url);
    announce(url);
    REQUIRE(ear.hears(++heard));
  }
  CHECK(ear.changes.load() == heard);
  CHECK(ear.subscription.announcements() == 3);
  CHECK(ear.subscription.subscriptions() == 1);
}

TEST_CASE("another fleet's announcements are not heard") {
  test::RedisServer server;
  Ear ear(server.unix_url());
  REQUIRE(ear.hears(1));
  Announcement other = announcement(server.unix_url());
  other.prefix = "other:";
  CHECK(failure_of(other) == "none");
  announce(server.unix_url());
  REQUIRE(ear.hears(2));
  CHECK(ear.subscription.announcements() == 1);
}

TEST_CASE("thousands of announcements at once are all heard, whatever their text") {
  test::RedisServer server;
  test::RedisClient client(server.socket_path());
  Ear ear(server.unix_url());
  REQUIRE(ear.hears(1));
  for (int i = 0; i < 5'000; ++i) {
    REQUIRE(client("PUBLISH", "test:changes", std::string(static_cast<std::size_t>(i) % 700, '\r')).integer ==
            1);
  }
  REQUIRE(ear.hears(5'001));
  CHECK(ear.changes.load() == 5'001);
  CHECK(ear.subscription.subscriptions() == 1);
}

TEST_CASE("a server that was killed is subscribed to again, which counts as a change") {
  test::RedisServer server;
  Ear ear("redis://127.0.0.1:" + std::to_string(server.port()));
  REQUIRE(ear.hears(1));
  server.kill();
  const Announcement lost = announcement(server.unix_url());
  CHECK(failure_of(lost) == "No such file or directory");
  server.start();
  REQUIRE(ear.subscribes(2));
  REQUIRE(ear.hears(2));
  announce(server.unix_url());
  REQUIRE(ear.hears(3));
}

TEST_CASE("a server that cuts off its subscribers is subscribed to again") {
  test::RedisServer server;
  test::RedisClient client(server.socket_path());
  Ear ear(server.unix_url());
  REQUIRE(ear.hears(1));
  CHECK(client("CLIENT", "KILL", "TYPE", "pubsub").integer == 1);
  REQUIRE(ear.hears(2));
  CHECK(ear.subscription.subscriptions() == 2);
}

TEST_CASE("silence is no reason to leave a server that answers PING") {
  test::RedisServer server;
  test::RedisClient client(server.socket_path());
  auto options = Ear::options(server.unix_url());
  options.ping_us = 1;  // with every tick
  options.stall_us = 10 * kMicrosPerSecond;
  Ear ear(options);
  REQUIRE(ear.hears(1));
  const auto pings = [&] {
    const std::string stats = client("INFO", "commandstats").text;
    const std::size_t at = stats.find("cmdstat_ping:calls=");
    return at == std::string::npos ? 0 : std::stoi(stats.substr(at + std::strlen("cmdstat_ping:calls=")));
  };
  REQUIRE(eventually([&] { return pings() >= 5; }));
  announce(server.unix_url());
  REQUIRE(ear.hears(2));
  CHECK(ear.subscription.subscriptions() == 1);
}

TEST_CASE("a server that is stopped is left after a while, and subscribed to again when it goes on") {
  test::RedisServer server;
  auto options = Ear::options(server.unix_url());
  options.ping_us = options.stall_us = 200 * kMicrosPerMilli;
  Ear ear(options);
  REQUIRE(ear.hears(1));
  server.pause();
  const auto began = std::chrono::steady_clock::now();
  Announcement impatient = announcement(server.unix_url());
  impatient.patience_us = 300 * kMicrosPerMilli;
  CHECK(failure_of(impatient) == "no answer in time");
  CHECK(std::chrono::steady_clock::now() - began < std::chrono::seconds(10));
  MetricsRegistry registry;
  ear.subscription.add_to(registry);
  CHECK(eventually(
      [&] { return registry.expose().find("\nkavach_changes_subscribed 0") != std::string::npos; }));
  server.resume();
  REQUIRE(ear.subscribes(2));
  REQUIRE(ear.hears(2));
}

TEST_CASE("a user who may not subscribe or publish is told so, and heard as soon as they may") {
  test::RedisServer server;
  test::RedisClient client(server.socket_path());
  CHECK(client("ACL", "SETUSER", "kavach", "on", ">w0rd", "+@all", "~*", "resetchannels").text == "OK");
  const std::string url = "redis://kavach:w0rd@127.0.0.1:" + std::to_string(server.port());
  Ear ear(url);
  CHECK(failure_of(announcement(url)) == "PUBLISH was refused (NOPERM)");
  MetricsRegistry registry;
  ear.subscription.add_to(registry);
  CHECK(eventually([&] {
    return registry.expose().find("\nkavach_changes_failed_attempts_total 2") != std::string::npos;
  }));
  CHECK(ear.changes.load() == 0);
  CHECK(client("ACL", "SETUSER", "kavach", "&test:changes").text == "OK");
  REQUIRE(ear.hears(1));
  announce(url);
  REQUIRE(ear.hears(2));
}

const std::string kSubscribed = "*3\r\n$9\r\nsubscribe\r\n$12\r\ntest:changes\r\n:1\r\n";
const std::string kMessage = "*3\r\n$7\r\nmessage\r\n$12\r\ntest:changes\r\n$2\r\nhi\r\n";

// Everything but the answer to SUBSCRIBE.
void greet(int fd) {
  FakeServer::hear(fd, "test:changes\r\n");
  FakeServer::say(fd, FakeServer::kGreeting);
}

TEST_CASE("messages that arrive byte by byte are put together") {
  FakeServer server([](int fd) {
    greet(fd);
    for (const char byte : kSubscribed + kMessage + kMessage) FakeServer::say(fd, {&byte, 1});
    FakeServer::hear_all(fd);
  });
  Ear ear(server.url());
  REQUIRE(ear.hears(3));
  CHECK(ear.subscription.announcements() == 2);
}

TEST_CASE("whatever is no message, no pong and no subscription ends the connection") {
  const std::string bad_subscriptions[] = {"+OK\r\n",     ":1\r\n",
                                           "*0\r\n",      kMessage,
                                           "-NOPERM\r\n", "*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n",
                                           "nonsense\r\n"};
  const std::string bad_messages[] = {
      "+PONG\r\n",
      "*3\r\n$7\r\nmessage\r\n$5\r\nother\r\n$2\r\nhi\r\n",
      "*3\r\n$7\r\nmessage\r\n$12\r\ntest:changes\r\n:1\r\n",
      "*2\r\n$7\r\nmessage\r\n$12\r\ntest:changes\r\n",
      "*4\r\n$8\r\npmessage\r\n$1\r\nx\r\n$12\r\ntest:changes\r\n$2\r\nhi\r\n",
      "*1000000000\r\n",
      "*3\r\n$7\r\nmessage\r\n$12\r\ntest:changes\r\n$100000000\r\n" + std::string(100'000, 'x'),
      "HTTP/1.1 400 Bad Request\r\n\r\n",
      kSubscribed,
  };
  std::vector<std::string> scripts(std::begin(bad_subscriptions), std::end(bad_subscriptions));
  for (const std::string& bad : bad_messages) scripts.push_back(kSubscribed + bad);
  for (const std::string& script : scripts) {
    CAPTURE(script.substr(0, 120));
    const bool is_subscribed = script.starts_with(kSubscribed);
    FakeServer server([&](int fd) {
      greet(fd);
      FakeServer::say(fd, script);
      FakeServer::hear_all(fd);
    });
    Ear ear(server.url());
    CHECK(eventually([&] { return server.connections() >= 3; }));
    CHECK(ear.subscription.announcements() == 0);
    CHECK((ear.subscription.subscriptions() > 0) == is_subscribed);
  }
}

TEST_CASE("an answer to PING that is none ends the connection") {
  for (const std::string answer : {"+PONG\r\n", "*2\r\n$4\r\nping\r\n$0\r\n\r\n", "-ERR no\r\n"}) {
    CAPTURE(answer);
    FakeServer server([&](int fd) {
      greet(fd);
      FakeServer::say(fd, kSubscribed);
      FakeServer::hear(fd, "PING\r\n");
      FakeServer::say(fd, answer);
      FakeServer::hear_all(fd);
    });
    auto options = Ear::options(server.url());
    options.ping_us = 1;
    Ear ear(options);
    CHECK(ear.subscribes(2));
  }
}

TEST_CASE("over TLS an announcement reaches a server that the authority vouches for, and no other") {
  const test::Certificates certificates;
  const std::uint16_t port = test::RedisServer::free_port();
  test::RedisServer server({"--tls-port", std::to_string(port), "--tls-cert-file",
                            certificates.folder.file("server.pem"), "--tls-key-file",
                            certificates.folder.file("server.key"), "--tls-auth-clients", "no"});
  const auto over_tls = [&](const std::string& host, const std::string& authority) {
    const auto tls = RedisTls::load(certificates.folder.file(authority));
    REQUIRE_MESSAGE(tls.has_value(), tls.error().message);
    Announcement made = announcement("rediss://" + host + ":" + std::to_string(port));
    made.tls = *tls;
    return made;
  };
  const Announcement good = over_tls("localhost", "ca.pem");
  auto options = Ear::options("rediss://localhost:" + std::to_string(port));
  options.tls = good.tls;
  Ear ear(options);
  REQUIRE(ear.hears(1));
  CHECK(failure_of(good) == "none");
  REQUIRE(ear.hears(2));
  CHECK(failure_of(over_tls("127.0.0.1", "ca.pem")) == "certificate: IP address mismatch");
  CHECK(failure_of(over_tls("localhost", "other_ca.pem")).starts_with("certificate: "));
  CHECK(ear.subscription.announcements() == 1);
}

TEST_CASE("what keeps an announcement from its server is told, without the password") {
  test::RedisServer server({"--requirepass", "s3cret"});
  CHECK(failure_of(announcement("unix://:wr0ng@" + server.socket_path())) == "AUTH was refused (WRONGPASS)");
  CHECK(failure_of(announcement(server.unix_url())) == "PUBLISH was refused (NOAUTH)");
  CHECK(failure_of(announcement("redis://127.0.0.1:1")) == "Connection refused");
  CHECK(
      failure_of(announcement("redis://no-such-host.invalid:6379")).starts_with("the host's name cannot be"));
  const auto to_fake = [](const std::string& answer) {
    FakeServer fake([&](int fd) {
      FakeServer::hear(fd, "directory\r\n");
      FakeServer::say(fd, answer);
      if (!answer.empty()) FakeServer::hear_all(fd);
    });
    return failure_of(announcement(fake.url()));
  };
  CHECK(to_fake("-ERR unknown command `PUBLISH`, with args beginning with: `s3cret`\r\n") ==
        "PUBLISH was refused (ERR)");
  CHECK(to_fake("+OK\r\n") == "PUBLISH is answered with something else");
  CHECK(to_fake("nonsense\r\n") == "the answer is no RESP2");
  CHECK(to_fake("$1000000\r\n" + std::string(10'000, 'x')) == "a reply is too long");
  CHECK(to_fake("") == "closed by the server");
}

}  // namespace
}  // namespace kavach::quota
