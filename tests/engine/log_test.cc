// Log: what is in a message cannot break its line, its JSON or the reader's terminal.
#include "engine/log.h"

#include "engine/timestamp.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <string_view>

namespace kavach {
namespace {

// What was written to stderr while it lives; afterwards the log is as a fresh process has it.
class CapturedLog {
 public:
  explicit CapturedLog(const log::Options& options) : file_(std::tmpfile()), stderr_(::dup(STDERR_FILENO)) {
    REQUIRE(file_ != nullptr);
    REQUIRE(::dup2(::fileno(file_), STDERR_FILENO) == STDERR_FILENO);
    log::init(options);
  }
  ~CapturedLog() {
    log::init({});
    ::dup2(stderr_, STDERR_FILENO);
    ::close(stderr_);
    std::fclose(file_);
  }
  CapturedLog(const CapturedLog&) = delete;
  CapturedLog& operator=(const CapturedLog&) = delete;

  std::string text() const {
    std::fflush(stderr);
    std::string out(64 << 10, '\0');
    const ssize_t size = ::pread(::fileno(file_), out.data(), out.size(), 0);
    out.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
    return out;
  }
  // The message of the one line that was logged at the level info.
  std::string message() const {
    const std::string line = text();
    const bool json = line.starts_with('{');
    const std::string_view head = json ? R"({"time":")" : "";
    const std::string_view middle = json ? R"re(","level":"info","message":")re" : " info ";
    const std::string_view tail = json ? "\"}\n" : "\n";
    constexpr std::size_t kTimeSize = sizeof("2026-05-25T14:30:00.123Z") - 1;
    const std::size_t begin = head.size() + kTimeSize + middle.size();
    REQUIRE(line.size() >= begin + tail.size());
    CHECK(line.starts_with(head));
    CHECK(parse_timestamp(line.substr(head.size(), kTimeSize)).has_value());
    CHECK(line.substr(head.size() + kTimeSize, middle.size()) == middle);
    CHECK(line.find('\n') == line.size() - 1);
    CHECK(line.ends_with(tail));
    return line.substr(begin, line.size() - begin - tail.size());
  }

 private:
  std::FILE* file_;
  int stderr_;
};

std::string logged(std::string_view message, bool json) {
  const CapturedLog captured({.json = json});
  log::write(log::Level::kInfo, message);
  return captured.message();
}

TEST_CASE("a line has the time in UTC, the level and the message") {
  const CapturedLog captured({});
  log::info("listening on {}:{}", "127.0.0.1", 8000);
  CHECK(captured.message() == "listening on 127.0.0.1:8000");
}

TEST_CASE("a message cannot end its line or steer a terminal") {
  CHECK(logged("a\n2026-01-01T00:00:00.000Z error forged", false) ==
        R"(a\n2026-01-01T00:00:00.000Z error forged)");
  CHECK(logged("tab\there\rback", false) == R"(tab\there\rback)");
  CHECK(logged("\x1b[31mred\x07\x7f", false) == R"(\u001b[31mred\u0007\u007f)");
  CHECK(logged(std::string_view("nul\0end", 7), false) == R"(nul\u0000end)");
  CHECK(logged(R"(as "it" is\)", false) == R"(as "it" is\)");
}

TEST_CASE("a JSON line is JSON, whatever the message") {
  CHECK(logged(R"(say "no" \ {})", true) == R"(say \"no\" \\ {})");
  CHECK(logged("a\nb\x01\x7f", true) == R"(a\nb\u0001\u007f)");
  CHECK(logged("%v %l {} grün", true) == "%v %l {} grün");
  const std::string forged = logged(R"("},{"level":"error")", true);
  CHECK(forged == R"(\"},{\"level\":\"error\")");
}

TEST_CASE("bytes that are no UTF-8 become U+FFFD, one for each byte, and the rest stays") {
  const std::string bad = "\xef\xbf\xbd";
  CHECK(logged("é € 😀", false) == "é € 😀");
  CHECK(logged("a\xff\x80z", false) == "a" + bad + bad + "z");
  CHECK(logged("cut \xe2\x82", false) == "cut " + bad + bad);
  CHECK(logged("overlong \xc0\xaf", false) == "overlong " + bad + bad);
  CHECK(logged("overlong \xe0\x80\xaf", false) == "overlong " + bad + bad + bad);
  CHECK(logged("surrogate \xed\xa0\x80", false) == "surrogate " + bad + bad + bad);
  CHECK(logged("beyond \xf4\x90\x80\x80", false) == "beyond " + bad + bad + bad + bad);
  CHECK(logged("last \xf4\x8f\xbf\xbf", false) == "last \xf4\x8f\xbf\xbf");
  // A broken sequence does not swallow the line break that follows it.
  CHECK(logged("\xe2\x82\nnext", false) == bad + bad + R"(\nnext)");
}

TEST_CASE("only what is as important as the level is written") {
  const CapturedLog captured({.level = log::Level::kWarning});
  log::debug("one");
  log::info("two");
  CHECK(captured.text().empty());
  CHECK_FALSE(log::enabled(log::Level::kInfo));
  log::warning("three");
  log::error("four");
  CHECK(captured.text().find(" warning three\n") != std::string::npos);
  CHECK(captured.text().find(" error four\n") != std::string::npos);
  const std::size_t size = captured.text().size();
  log::set_level(log::Level::kOff);
  log::error("five");
  CHECK(captured.text().size() == size);
  CHECK_FALSE(log::enabled(log::Level::kOff));
}

}  // namespace
}  // namespace kavach
