// Router and rendering: which path goes where, and the bytes of an answer.
#include "http/router.h"

#include <doctest/doctest.h>

#include <string>

#include "http/transport/render.h"

namespace kavach::http {
namespace {

class RecordedExchange final : public Exchange {
 public:
  RecordedExchange(Method method, std::string_view path) {
    request_.method = method;
    request_.path = path;
  }
  void release_body() override {}
  PaddedBuffer take_body() override { return {}; }
  void give_back(PaddedBuffer) override {}
  void answer(const Response& response) override {
    status = response.status;
    headers = response.headers;
  }
  int status = 0;
  std::string headers;
};

class Answering final : public Handler {
 public:
  explicit Answering(int status) : status_(status) {}
  void handle(Exchange& exchange) override { exchange.answer({.status = status_}); }
  std::optional<Response> refuse_early(const Request&) override { return std::nullopt; }

 private:
  int status_;
};

struct RouterFixture {
  RouterFixture() {
    router.add(Method::kGet, "/a", get);
    router.add(Method::kPost, "/a", post);
    router.add(Method::kPost, "/b c", post);
  }
  int status_of(Method method, std::string_view path) {
    RecordedExchange exchange(method, path);
    router.handle(exchange);
    headers = exchange.headers;
    return exchange.status;
  }
  Answering get{200};
  Answering post{202};
  Router router;
  std::string headers;
};

TEST_CASE_FIXTURE(RouterFixture, "path and method choose the handler, after percent-decoding") {
  CHECK(status_of(Method::kGet, "/a") == 200);
  CHECK(status_of(Method::kHead, "/a") == 200);
  CHECK(status_of(Method::kPost, "/a") == 202);
  CHECK(status_of(Method::kPost, "/%61") == 202);
  CHECK(status_of(Method::kPost, "/b%20c") == 202);
}

TEST_CASE_FIXTURE(RouterFixture, "an unknown path is 404, a known one with another method 405 with Allow") {
  for (const char* path : {"/", "/a/", "/A", "/%zz", "/a%2", ""}) CHECK(status_of(Method::kGet, path) == 404);
  CHECK(status_of(Method::kDelete, "/a") == 405);
  CHECK(headers == "Allow: GET, HEAD, POST\r\n");
  CHECK(status_of(Method::kGet, "/b c") == 405);
  CHECK(headers == "Allow: POST\r\n");
}

TEST_CASE("an answer's bytes are complete and in order") {
  std::string out;
  render_response({.status = 202, .body = "{}", .headers = "X: y\r\n"}, {.keep_alive = true}, "D", out);
  CHECK(out ==
        "HTTP/1.1 202 Accepted\r\nDate: D\r\nContent-Type: application/json\r\nContent-Length: 2\r\nX: "
        "y\r\n\r\n{}");
  render_response({.status = 204}, {.keep_alive = false}, "D", out);
  CHECK(out == "HTTP/1.1 204 No Content\r\nDate: D\r\nConnection: close\r\n\r\n");
  CHECK(error_body("say \"no\"") == R"({"detail":"say \"no\""})");
}

TEST_CASE("the date is an IMF-fixdate") {
  char text[32];
  format_http_date(784111777, text);
  CHECK(std::string(text) == "Sun, 06 Nov 1994 08:49:37 GMT");
}

}  // namespace
}  // namespace kavach::http
