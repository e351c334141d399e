// RESP2: commands as bytes, bytes as replies (hiredis's reader behind a value type).
//
// What the server may make us hold is bounded: a reply that is longer, has more elements or is no RESP2 is an
// error, after which nothing that the connection sends means anything.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

struct redisReader;

namespace kavach::quota {

struct RedisReply {
  enum class Kind : std::uint8_t { kNil, kInteger, kText, kStatus, kError, kArray };
  Kind kind = Kind::kNil;
  std::int64_t integer = 0;
  std::string text;  // of kText, kStatus and kError
  std::vector<RedisReply> elements;

  bool is_error() const noexcept { return kind == Kind::kError; }
  // The first word of an error: "NOSCRIPT".
  std::string_view error_code() const noexcept;
};

class RedisReplyReader {
 public:
  struct Options {
    std::size_t reply_bytes_max = 16 << 20;
    std::size_t elements_max = 1 << 20;  // of one array
  };
  explicit RedisReplyReader(const Options& options);
  ~RedisReplyReader();
  RedisReplyReader(const RedisReplyReader&) = delete;
  RedisReplyReader& operator=(const RedisReplyReader&) = delete;

  void feed(std::string_view bytes);
  // The next whole reply; nullopt when more bytes are needed, or when broken().
  std::optional<RedisReply> next();
  bool broken() const noexcept { return broken_ != nullptr; }
  // Why, as a literal.
  const char* reason() const noexcept { return broken_; }

 private:
  struct Deleter {
    void operator()(redisReader* reader) const noexcept;
  };

  Options options_;
  std::unique_ptr<redisReader, Deleter> reader_;
  std::size_t begun_bytes_ = 0;  // of the reply that is not complete yet
  const char* broken_ = nullptr;
};

// One command: REDIS_COMMAND("SET", key) would be RedisCommand().add("SET").add(key).bytes().
class RedisCommand {
 public:
  RedisCommand& add(std::string_view argument);
  RedisCommand& add(std::int64_t argument);
  RedisCommand& add_unsigned(std::uint64_t argument);
  std::string bytes() const;

 private:
  std::size_t count_ = 0;
  std::string arguments_;
};

}  // namespace kavach::quota
