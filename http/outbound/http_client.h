// HttpClient: one blocking request to somebody else's server, over libcurl.
//
// It follows no redirect, uses no proxy, sends no cookie, verifies certificates, and keeps a total timeout
// and a bound on the answer. Unless told otherwise it connects to public addresses only
// (http/outbound/address_guard.h), judged on the address of each socket it opens. A failure says scheme and
// host and never more of a URL: the URLs of webhooks are secrets. `retryable` is true for what may pass:
// names that do not resolve, refused connections, timeouts, TLS.
//
// Any thread, several at a time; never a shard's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/result.h"

namespace kavach::http {

struct HttpHeader {
  std::string name;
  std::string value;
};

struct HttpRequest {
  std::string method = "POST";
  std::string url;
  std::vector<HttpHeader> headers = {};
  std::string body = {};   // not sent with GET
  bool needs_body = true;  // of the answer; if not, one that is too long is cut off instead of a failure
};

struct HttpResponse {
  int status = 0;  // any: an answer is no failure
  std::string body;
  std::optional<std::int64_t> retry_after_s = {};
};

class HttpClient {
 public:
  virtual ~HttpClient() = default;
  virtual Result<HttpResponse> send(const HttpRequest& request) = 0;
  // Requests under way and later ones fail soon (retryable). Any thread.
  virtual void abort() noexcept = 0;
};

struct HttpClientOptions {
  std::int64_t timeout_ms = 10'000;  // of everything: name, connection, answer
  std::size_t response_bytes_max = std::size_t{256} << 10;
  bool allow_private = false;
  std::string ca_file = {};  // empty: the system's
};

std::unique_ptr<HttpClient> make_http_client(const HttpClientOptions& options);

// Where a URL leads, as far as it may be shown.
struct HttpTarget {
  std::string shown;      // "https://hooks.slack.com"
  std::string authority;  // "https://hooks.slack.com:443": one server
};
// Fails (finally) for anything but a whole http:// or https:// URL; the message shows nothing of it.
Result<HttpTarget> parse_target(std::string_view url);

// libcurl wants to be set up once for the process before it is used; mailer.cc uses it too. Any thread.
void init_curl();

}  // namespace kavach::http
