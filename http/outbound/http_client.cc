#include "http/outbound/http_client.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <utility>

#include "engine/check.h"
#include "http/outbound/address_guard.h"

namespace kavach::http {
namespace {

template <auto Destroy>
struct Destroyer {
  template <typename T>
  void operator()(T* p) const noexcept {
    Destroy(p);
  }
};
using Easy = std::unique_ptr<CURL, Destroyer<curl_easy_cleanup>>;
using List = std::unique_ptr<curl_slist, Destroyer<curl_slist_free_all>>;
using Url = std::unique_ptr<CURLU, Destroyer<curl_url_cleanup>>;

std::string part_of(CURLU* url, CURLUPart part, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url, part, &text, flags) != CURLUE_OK || text == nullptr) return {};
  std::string copy = text;
  curl_free(text);
  return copy;
}

// One request's state, which libcurl's callbacks see.
struct Transfer {
  const HttpClientOptions& options;
  const std::atomic<bool>& aborted;
  bool needs_body;
  std::string body = {};
  bool too_long = false;
  bool refused = false;    // an address that is not public
  bool connected = false;  // an address that was allowed
};

std::size_t take_body(char* bytes, std::size_t size, std::size_t count, void* context) {
  auto& transfer = *static_cast<Transfer*>(context);
  if (transfer.body.size() + size * count > transfer.options.response_bytes_max) {
    transfer.too_long = true;
    return 0;
  }
  transfer.body.append(bytes, size * count);
  return size * count;
}

curl_socket_t open_socket(void* context, curlsocktype, curl_sockaddr* address) {
  auto& transfer = *static_cast<Transfer*>(context);
  if (!transfer.options.allow_private && !is_public_address(address->addr)) {
    transfer.refused = true;
    return CURL_SOCKET_BAD;
  }
  transfer.connected = true;
  return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

int is_aborted(void* context, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<const Transfer*>(context)->aborted.load() ? 1 : 0;
}

bool has_line_break(std::string_view text) {
  return text.find_first_of(std::string_view("\r\n\0", 3)) != std::string_view::npos;
}

Result<List> header_list(const HttpRequest& request) {
  curl_slist* list = nullptr;
  const auto append = [&list](const std::string& line) {
    curl_slist* longer = curl_slist_append(list, line.c_str());
    KAVACH_CHECK(longer != nullptr, "out of memory");
    list = longer;
  };
  append("Expect:");  // nothing of ours is long enough to ask first
  for (const HttpHeader& header : request.headers) {
    if (header.name.empty() || header.name.find(':') != std::string::npos || has_line_break(header.name) ||
        has_line_break(header.value)) {
      curl_slist_free_all(list);
      return failure("a header of the request is malformed");
    }
    // A semicolon is how libcurl spells a header without a value.
    append(header.value.empty() ? header.name + ";" : header.name + ": " + header.value);
  }
  return Result<List>(boost::system::in_place_value, list);
}

bool may_pass(CURLcode code) {
  switch (static_cast<int>(code)) {  // not a closed enum: libcurl's codes grow
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_BAD_FUNCTION_ARGUMENT:
      return false;
    default:
      return true;
  }
}

class CurlHttpClient final : public HttpClient {
 public:
  explicit CurlHttpClient(HttpClientOptions options) : options_(std::move(options)) { init_curl(); }

  Result<HttpResponse> send(const HttpRequest& request) override {
    auto target = parse_target(request.url);
    if (!target) return target.error();
    auto headers = header_list(request);
    if (!headers) return failure(target->shown + ": " + headers.error().message);
    const Easy easy(curl_easy_init());
    KAVACH_CHECK(easy != nullptr, "out of memory");
    Transfer transfer{options_, aborted_, request.needs_body};
    set_up(easy.get(), request, headers->get(), transfer);
    const CURLcode code = curl_easy_perform(easy.get());
    return finish(easy.get(), code, *target, std::move(transfer));
  }

  void abort() noexcept override { aborted_.store(true); }

 private:
  void set_up(CURL* easy, const HttpRequest& request, curl_slist* headers, Transfer& transfer) const {
    curl_easy_setopt(easy, CURLOPT_URL, request.url.c_str());
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(options_.timeout_ms));
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    // A proxy's address would be the one that the guard sees.
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    if (!options_.ca_file.empty()) curl_easy_setopt(easy, CURLOPT_CAINFO, options_.ca_file.c_str());
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "kavach/" KAVACH_VERSION);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    if (request.method != "GET") {
      curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
      curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request.body.data());
      if (request.method != "POST") curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request.method.c_str());
    }
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &take_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &transfer);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, &open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, &transfer);
    curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, &is_aborted);
    curl_easy_setopt(easy, CURLOPT_XFERINFODATA, &transfer);
  }

  Result<HttpResponse> finish(CURL* easy, CURLcode code, const HttpTarget& target, Transfer transfer) const {
    if (transfer.refused && !transfer.connected) {
      return failure(target.shown +
                     ": has no public address, and others are refused (alerts.allow_private_targets)");
    }
    if (transfer.too_long && transfer.needs_body) {
      return failure(
          fmt::format("{}: answered with more than {} bytes", target.shown, options_.response_bytes_max));
    }
    if (code != CURLE_OK && !transfer.too_long) {
      return Failure{fmt::format("{}: {}", target.shown, curl_easy_strerror(code)), may_pass(code)};
    }
    long status = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    HttpResponse response{.status = static_cast<int>(status), .body = std::move(transfer.body)};
    curl_off_t wait_s = 0;
    if (curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &wait_s) == CURLE_OK && wait_s > 0)
      response.retry_after_s = wait_s;
    return response;
  }

  const HttpClientOptions options_;
  std::atomic<bool> aborted_{false};
};

}  // namespace

void init_curl() {
  static std::once_flag once;
  std::call_once(once,
                 [] { KAVACH_CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK, "libcurl failed"); });
}

std::unique_ptr<HttpClient> make_http_client(const HttpClientOptions& options) {
  return std::make_unique<CurlHttpClient>(options);
}

Result<HttpTarget> parse_target(std::string_view url) {
  init_curl();
  const Url parsed(curl_url());
  KAVACH_CHECK(parsed != nullptr, "out of memory");
  const std::string text(url);
  if (has_line_break(url) || curl_url_set(parsed.get(), CURLUPART_URL, text.c_str(), 0) != CURLUE_OK)
    return failure("the target is no URL");
  const std::string scheme = part_of(parsed.get(), CURLUPART_SCHEME);
  std::string host = part_of(parsed.get(), CURLUPART_HOST);
  std::transform(host.begin(), host.end(), host.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  if ((scheme != "http" && scheme != "https") || host.empty())
    return failure("the target is no http:// or https:// URL");
  const std::string port = part_of(parsed.get(), CURLUPART_PORT, CURLU_DEFAULT_PORT);
  return HttpTarget{fmt::format("{}://{}", scheme, host), fmt::format("{}://{}:{}", scheme, host, port)};
}

}  // namespace kavach::http
