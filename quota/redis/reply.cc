#include "quota/redis/reply.h"

#include <fmt/format.h>
#include <hiredis/read.h>

#include <iterator>

namespace kavach::quota {
namespace {

// hiredis builds a reply top-down: each function makes one value, where the task says. They are called
// through C, so nothing may be thrown: memory that is not there ends the process.
RedisReply* place(const redisReadTask* task) {
  if (task->parent == nullptr) return new RedisReply;
  auto& parent = *static_cast<RedisReply*>(task->parent->obj);
  return &parent.elements[static_cast<std::size_t>(task->idx)];
}

RedisReply::Kind text_kind(int type) noexcept {
  if (type == REDIS_REPLY_ERROR) return RedisReply::Kind::kError;
  return type == REDIS_REPLY_STATUS ? RedisReply::Kind::kStatus : RedisReply::Kind::kText;
}

void* make_text(const redisReadTask* task, char* text, std::size_t size) noexcept {
  RedisReply* reply = place(task);
  reply->kind = text_kind(task->type);
  reply->text.assign(text, size);
  return reply;
}

void* make_array(const redisReadTask* task, int elements) noexcept {
  const auto elements_max = *static_cast<const std::size_t*>(task->privdata);
  if (elements < 0 || static_cast<std::size_t>(elements) > elements_max) return nullptr;
  RedisReply* reply = place(task);
  reply->kind = RedisReply::Kind::kArray;
  reply->elements.resize(static_cast<std::size_t>(elements));
  return reply;
}

void* make_integer(const redisReadTask* task, long long value) noexcept {
  RedisReply* reply = place(task);
  reply->kind = RedisReply::Kind::kInteger;
  reply->integer = value;
  return reply;
}

void* make_nil(const redisReadTask* task) noexcept {
  return place(task);
}

// Only roots are given back.
void free_reply(void* reply) noexcept {
  delete static_cast<RedisReply*>(reply);
}

redisReplyObjectFunctions reply_functions{make_text, make_array, make_integer, make_nil, free_reply};

}  // namespace

std::string_view RedisReply::error_code() const noexcept {
  return is_error() ? std::string_view(text).substr(0, text.find(' ')) : std::string_view();
}

// --- RedisReplyReader --------------------------------------------------------------------------------------

void RedisReplyReader::Deleter::operator()(redisReader* reader) const noexcept {
  ::redisReaderFree(reader);
}

RedisReplyReader::RedisReplyReader(const Options& options)
    : options_(options), reader_(::redisReaderCreateWithFunctions(&reply_functions)) {
  reader_->privdata = &options_.elements_max;
}

RedisReplyReader::~RedisReplyReader() = default;

void RedisReplyReader::feed(std::string_view bytes) {
  if (broken()) return;
  if (::redisReaderFeed(reader_.get(), bytes.data(), bytes.size()) != REDIS_OK)
    broken_ = "no memory for a reply";
  begun_bytes_ += bytes.size();
}

std::optional<RedisReply> RedisReplyReader::next() {
  if (broken()) return std::nullopt;
  void* made = nullptr;
  if (::redisReaderGetReply(reader_.get(), &made) != REDIS_OK) {
    broken_ = reader_->err == REDIS_ERR_OOM ? "a reply has too many elements" : "the answer is no RESP2";
    return std::nullopt;
  }
  if (made == nullptr) {
    if (begun_bytes_ > options_.reply_bytes_max) broken_ = "a reply is too long";
    return std::nullopt;
  }
  begun_bytes_ = reader_->len - reader_->pos;
  const std::unique_ptr<RedisReply> reply(static_cast<RedisReply*>(made));
  return std::move(*reply);
}

// --- RedisCommand ------------------------------------------------------------------------------------------

RedisCommand& RedisCommand::add(std::string_view argument) {
  ++count_;
  fmt::format_to(std::back_inserter(arguments_), "${}\r\n", argument.size());
  arguments_.append(argument).append("\r\n");
  return *this;
}

RedisCommand& RedisCommand::add(std::int64_t argument) {
  const fmt::format_int text(argument);
  return add(std::string_view(text.data(), text.size()));
}

RedisCommand& RedisCommand::add_unsigned(std::uint64_t argument) {
  const fmt::format_int text(argument);
  return add(std::string_view(text.data(), text.size()));
}

std::string RedisCommand::bytes() const {
  return fmt::format("*{}\r\n{}", count_, arguments_);
}

}  // namespace kavach::quota
