// Transport: bytes on a real connection, whole and cut in two, must be understood as the same requests and be
// refused in the same way, and every answer must be well-formed.
//
// Server and client live in one thread: the shard's loop is turned by hand, so that a run is repeatable. No
// timeout ever ends here, since the shard's clock stands still.
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/ip/address_v4.hpp>
#include <cerrno>
#include <charconv>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/bounds.h"
#include "engine/check.h"
#include "engine/crc32c.h"
#include "http/transport/server.h"

namespace kavach::http {
namespace {

// Notes what it was asked. Answers at once, or later with the body released or taken, as the method says.
class Recorder final : public Handler {
 public:
  void handle(Exchange& exchange) override {
    const Request& request = exchange.request();
    requests.push_back(describe(request));
    if (request.method == Method::kPut) {
      exchange.release_body();
      waiting.emplace_back([&exchange] { exchange.answer({.body = "{}"}); });
    } else if (request.method == Method::kPatch) {
      const std::string body(request.body);
      const std::string_view view = request.body;
      auto taken = std::make_shared<PaddedBuffer>(exchange.take_body());
      waiting.emplace_back([&exchange, taken, view, body] {
        KAVACH_CHECK(view == body, "a taken body changed");
        exchange.give_back(std::move(*taken));
        exchange.answer({.body = "{}"});
      });
    } else {
      exchange.answer({.status = 202, .body = "{}", .headers = "Kavach-Receipt: journal\r\n"});
    }
  }

  std::optional<Response> refuse_early(const Request& request) override {
    KAVACH_CHECK(request.body.empty(), "asked early, with a body");
    return std::nullopt;
  }

  std::vector<std::string> requests;
  std::vector<std::function<void()>> waiting;

 private:
  std::string describe(const Request& request) {
    std::string text = std::to_string(static_cast<int>(request.method));
    for (const std::string_view part :
         {request.path, request.query, request.authorization, request.api_key, request.content_type,
          request.content_encoding, request.if_none_match, request.stripe_signature, request.origin,
          request.forwarded_for, request.preflight_method, request.body}) {
      text.append("|").append(part);
    }
    // A parser may read so far behind a body.
    if (!request.body.empty())
      padding_sum_ ^= crc32c(0, request.body.data() + request.body.size(), bounds::kBodyPadding);
    return text;
  }

  std::uint32_t padding_sum_ = 0;
};

struct Outcome {
  std::vector<std::string> requests;
  std::vector<int> statuses;
  bool reset = false;  // by the server, so that answers may be missing
};

// Cuts answers off the front of `bytes` and appends their statuses.
void take_answers(std::string& bytes, std::vector<int>& statuses) {
  for (;;) {
    const std::size_t end = bytes.find("\r\n\r\n");
    if (end == std::string::npos) return;
    const std::string_view head = std::string_view(bytes).substr(0, end + 2);
    KAVACH_CHECK(head.starts_with("HTTP/1.1 "), "an answer's first line");
    int status = 0;
    std::from_chars(head.data() + 9, head.data() + 12, status);
    KAVACH_CHECK(status >= 100 && status <= 599, "an answer's status");
    constexpr std::string_view kLength = "Content-Length: ";
    std::size_t length = 0;
    const std::size_t at = head.find(kLength);
    if (at != std::string_view::npos) {
      std::from_chars(head.data() + at + kLength.size(), head.data() + head.size(), length);
    }
    KAVACH_CHECK(status == 100 || at != std::string_view::npos, "an answer without its length");
    // Of an answer to HEAD only the head comes; what follows it begins like an answer, or is nothing.
    const std::string_view behind = std::string_view(bytes).substr(end + 4);
    const bool is_head_only = behind.empty() || behind.starts_with("HTTP/1.1 ");
    if (!is_head_only && behind.size() < length) return;
    // Whether 100 comes depends on how much of the body was there already.
    if (status != 100) statuses.push_back(status);
    bytes.erase(0, end + 4 + (is_head_only ? 0 : length));
  }
}

class Peer {
 public:
  Peer(std::uint32_t host, std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = host;
    int connected = ::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
    // libFuzzer's alarm interrupts; the connection is made all the same.
    while (connected != 0 && errno == EINTR) {
      pollfd made{fd_, POLLOUT, 0};
      connected = ::poll(&made, 1, -1) == 1 ? 0 : -1;
    }
    KAVACH_CHECK(connected == 0, "cannot connect");
  }
  // With a reset, so that no port stays taken.
  ~Peer() {
    const linger now{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    ::close(fd_);
  }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  void send(std::string_view bytes) {
    while (!bytes.empty() && !ended) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n < 0 && errno != EINTR) ended = reset = true;
      if (n > 0) bytes.remove_prefix(static_cast<std::size_t>(n));
    }
  }

  void receive() {
    char block[4096];
    while (!ended) {
      const ssize_t n = ::recv(fd_, block, sizeof(block), MSG_DONTWAIT);
      if (n < 0 && errno == EAGAIN) return;
      if (n > 0) {
        received.append(block, static_cast<std::size_t>(n));
      } else {
        ended = true;
        reset = n < 0;
      }
    }
  }

  std::string received;
  bool ended = false;
  bool reset = false;

 private:
  int fd_;
};

class Harness {
 public:
  Harness() {
    ServerOptions options;
    options.limits.header_bytes_max = 512;
    options.limits.body_bytes_max = 1024;
    // An address of this process alone: SO_REUSEPORT would let two fuzzers share a port.
    const auto pid = static_cast<std::uint32_t>(::getpid());
    const std::uint32_t address = INADDR_LOOPBACK + (pid & 0xff'ffff);
    address_ = htonl(address);
    options.address = boost::asio::ip::address_v4(address).to_string();
    for (std::uint16_t port = 20'000; port < 30'000; ++port) {
      options.port = port;
      auto server = std::make_unique<Server>(shard_, recorder_, options, open_connections_);
      if (!server->listen()) continue;
      port_ = port;
      server_ = std::move(server);
      server_->start();
      return;
    }
    KAVACH_CHECK(false, "no port to listen on");
  }

  Outcome run(std::string_view first, std::string_view second) {
    Outcome outcome;
    recorder_.requests.clear();
    {
      Peer peer(address_, port_);
      const std::uint64_t read_before = server_->metrics().bytes_in.value();
      const std::uint64_t answers_before = answers();
      std::uint64_t sent = 0;
      for (const std::string_view piece : {first, second}) {
        peer.send(piece);
        sent += piece.size();
        // Every byte is read, unless the server has ended the connection and said so.
        do {
          turn(peer);
        } while (!peer.ended && server_->metrics().bytes_in.value() - read_before < sent);
      }
      // The answers are under way at most.
      const auto is_answered = [&] {
        outcome.statuses.clear();
        std::string received = peer.received;
        take_answers(received, outcome.statuses);
        return received.empty() && outcome.statuses.size() == answers() - answers_before;
      };
      while (!is_answered() && !peer.ended) turn(peer);
      KAVACH_CHECK(is_answered() || peer.reset, "half an answer, or none");
      outcome.reset = peer.reset;
    }
    while (server_->connection_count() > 0) poll();
    outcome.requests = std::move(recorder_.requests);
    return outcome;
  }

 private:
  std::uint64_t answers() const {
    std::uint64_t sum = 0;
    for (const Counter& by_class : server_->metrics().answers) sum += by_class.value();
    return sum;
  }

  void poll() {
    shard_.io().restart();
    shard_.io().poll();
  }

  void turn(Peer& peer) {
    do {
      poll();
      for (auto& answer : std::exchange(recorder_.waiting, {})) answer();
    } while (!recorder_.waiting.empty());
    peer.receive();
  }

  Runtime runtime_{{.shards = 1}};
  Shard& shard_ = runtime_.shard(0);
  Recorder recorder_;
  std::atomic<std::int64_t> open_connections_{0};
  std::uint32_t address_ = 0;  // in network order
  std::uint16_t port_ = 0;
  std::unique_ptr<Server> server_;
};

void check(std::string_view bytes) {
  static Harness harness;
  const Outcome whole = harness.run(bytes, {});
  // Anywhere, and the same on every run.
  const std::size_t cut = bytes.empty() ? 0 : crc32c(0, bytes.data(), bytes.size()) % bytes.size();
  const Outcome halves = harness.run(bytes.substr(0, cut), bytes.substr(cut));
  KAVACH_CHECK(whole.requests == halves.requests, "cut in two, other requests are understood");
  if (whole.reset || halves.reset) return;
  KAVACH_CHECK(whole.statuses == halves.statuses, "cut in two, the answers differ");
}

}  // namespace
}  // namespace kavach::http

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  // More than one read takes would be cut in any case.
  if (size > kavach::http::kBufferBytes / 2) return 0;
  kavach::http::check({reinterpret_cast<const char*>(bytes), size});
  return 0;
}
