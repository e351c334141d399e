// RESP2 and URLs: the same bytes whole, split at every place, and broken.
#include "quota/redis/reply.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "quota/redis/url.h"

namespace kavach::quota {
namespace {

// A reply in one line: `[+OK, 42, "text", -ERR x, nil]`.
std::string shown(const RedisReply& reply) {
  switch (reply.kind) {
    case RedisReply::Kind::kNil:
      return "nil";
    case RedisReply::Kind::kInteger:
      return std::to_string(reply.integer);
    case RedisReply::Kind::kText:
      return '"' + reply.text + '"';
    case RedisReply::Kind::kStatus:
      return '+' + reply.text;
    case RedisReply::Kind::kError:
      return '-' + reply.text;
    case RedisReply::Kind::kArray:
      break;
  }
  std::string text = "[";
  for (const RedisReply& element : reply.elements) text += (text.size() > 1 ? ", " : "") + shown(element);
  return text + ']';
}

void drain(RedisReplyReader& reader, std::vector<std::string>& out) {
  while (const auto reply = reader.next()) out.push_back(shown(*reply));
}

const std::string kAll =
    "+OK\r\n:-42\r\n$5\r\nhe\r\no\r\n$-1\r\n$0\r\n\r\n*-1\r\n*0\r\n-NOSCRIPT No matching script\r\n"
    "*4\r\n:9007199254740993\r\n*2\r\n$1\r\na\r\n*1\r\n:1\r\n-ERR x\r\n$-1\r\n";
const std::vector<std::string> kAllShown{"+OK",
                                         "-42",
                                         "\"he\r\no\"",
                                         "nil",
                                         "\"\"",
                                         "nil",
                                         "[]",
                                         "-NOSCRIPT No matching script",
                                         "[9007199254740993, [\"a\", [1]], -ERR x, nil]"};

TEST_CASE("replies are the same whole, split at every byte, and byte by byte") {
  for (std::size_t split = 0; split <= kAll.size(); ++split) {
    RedisReplyReader reader({});
    std::vector<std::string> out;
    reader.feed(std::string_view(kAll).substr(0, split));
    drain(reader, out);
    reader.feed(std::string_view(kAll).substr(split));
    drain(reader, out);
    CHECK(out == kAllShown);
    CHECK_FALSE(reader.broken());
  }
  RedisReplyReader reader({});
  std::vector<std::string> out;
  for (const char byte : kAll) {
    reader.feed({&byte, 1});
    drain(reader, out);
  }
  CHECK(out == kAllShown);
}

TEST_CASE("what is no RESP2 breaks the reader for good") {
  for (const std::string_view bytes :
       {"HTTP/1.1 400 Bad Request\r\n", "$x\r\n", ":1a\r\n", "*2\r\n:1\r\n?\r\n", "\r\n",
        "$99999999999999999999\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n"}) {
    CAPTURE(bytes);
    RedisReplyReader reader({});
    reader.feed(bytes);
    CHECK_FALSE(reader.next().has_value());
    CHECK(reader.broken());
    reader.feed("+OK\r\n");
    CHECK_FALSE(reader.next().has_value());
  }
}

TEST_CASE("a reply that is too long or has too many elements is refused before it is there") {
  const RedisReplyReader::Options bounds{.reply_bytes_max = 100, .elements_max = 10};
  RedisReplyReader too_long(bounds);
  too_long.feed("$1000000\r\n" + std::string(80, 'x'));
  CHECK_FALSE(too_long.next().has_value());
  CHECK_FALSE(too_long.broken());
  too_long.feed(std::string(80, 'x'));
  CHECK_FALSE(too_long.next().has_value());
  CHECK(too_long.broken());

  RedisReplyReader too_many(bounds);
  too_many.feed("*11\r\n");
  CHECK_FALSE(too_many.next().has_value());
  CHECK(too_many.broken());

  // The bound is one reply's: many short ones pass, also those whose begin came with the one before.
  RedisReplyReader many(bounds);
  std::vector<std::string> out;
  for (int i = 0; i < 100; ++i) {
    many.feed("$5\r\nhello\r\n$5\r\nhe");
    many.feed("llo\r\n");
    drain(many, out);
  }
  CHECK(out.size() == 200);
  CHECK_FALSE(many.broken());
}

TEST_CASE("an error tells its code") {
  RedisReplyReader reader({});
  reader.feed("-NOSCRIPT No matching script\r\n-ERR\r\n+OK\r\n");
  CHECK(reader.next()->error_code() == "NOSCRIPT");
  CHECK(reader.next()->error_code() == "ERR");
  CHECK(reader.next()->error_code().empty());
}

TEST_CASE("a command is an array of its arguments, whatever bytes they hold") {
  CHECK(RedisCommand().add("GET").add("a\r\nb").add(std::int64_t{-7}).add_unsigned(~0ULL).add("").bytes() ==
        "*5\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n$2\r\n-7\r\n$20\r\n18446744073709551615\r\n$0\r\n\r\n");
}

TEST_CASE("a URL names the server, and is shown without its secrets") {
  const auto tcp = RedisUrl::parse("redis://kavach:p%40ss%2fword@redis.example:6380/3");
  REQUIRE(tcp.has_value());
  CHECK_FALSE(tcp->tls);
  CHECK(tcp->host == "redis.example");
  CHECK(tcp->port == 6380);
  CHECK(tcp->user == "kavach");
  CHECK(tcp->password == "p@ss/word");
  CHECK(tcp->db == 3);
  CHECK(tcp->shown() == "redis://***@redis.example:6380/3");

  const auto tls = RedisUrl::parse("rediss://:secret@[::1]");
  REQUIRE(tls.has_value());
  CHECK(tls->tls);
  CHECK(tls->host == "::1");
  CHECK(tls->port == 6379);
  CHECK(tls->user.empty());
  CHECK(tls->password == "secret");
  CHECK(tls->shown() == "rediss://***@[::1]:6379/0");

  const auto local = RedisUrl::parse("unix://u:p@/run/redis/a%20b.sock?db=2");
  REQUIRE(local.has_value());
  CHECK(local->path == "/run/redis/a b.sock");
  CHECK(local->user == "u");
  CHECK(local->password == "p");
  CHECK(local->db == 2);
  CHECK(local->shown() == "unix://***@/run/redis/a b.sock?db=2");
  CHECK(RedisUrl::parse("redis://h/")->db == 0);
}

TEST_CASE("a URL that names no server is refused, and the message holds nothing of it") {
  for (const std::string_view text : {"",
                                      "h",
                                      "http://secret",
                                      "redis://",
                                      "redis://secret@h",
                                      "redis://u:@h",
                                      "redis://u:secret%4@h",
                                      "redis://u:secret%zz@h",
                                      "redis://u:sec/ret@h",
                                      "redis://secret:port",
                                      "redis://h:0",
                                      "redis://h:65536",
                                      "redis://h/secret",
                                      "redis://h/1x",
                                      "redis://h/-1",
                                      "redis://[::1",
                                      "redis://[::1]6379",
                                      "unix://",
                                      "unix://secret/path",
                                      "unix:///p?secret=1",
                                      "unix:///p?db=",
                                      "redis://u:secret%00@h"}) {
    CAPTURE(text);
    const auto url = RedisUrl::parse(text);
    REQUIRE_FALSE(url.has_value());
    CHECK(url.error().message.starts_with("redis.url: "));
    CHECK(url.error().message.find("secret") == std::string::npos);
  }
  CHECK_FALSE(RedisUrl::parse("unix:///" + std::string(200, 'x')).has_value());
}

}  // namespace
}  // namespace kavach::quota
