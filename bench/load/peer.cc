#include "bench/load/peer.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <system_error>

namespace kavach::bench {
namespace {

constexpr std::size_t kReadBytes = 16 << 10;

// The value of Content-Length, or 0. Servers differ in how they write the name.
std::size_t content_length(std::string_view head) {
  constexpr std::string_view kName = "\r\ncontent-length: ";
  const auto same = [](char a, char b) { return std::tolower(static_cast<unsigned char>(a)) == b; };
  const auto at = std::search(head.begin(), head.end(), kName.begin(), kName.end(), same);
  std::size_t length = 0;
  if (at != head.end()) std::from_chars(&*at + kName.size(), head.data() + head.size(), length);
  return length;
}

[[noreturn]] void fail(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

Nanos now_ns() noexcept {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return Nanos{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

Peer::Peer(const LoadOptions& options, const Expected& expected) : expected_(expected) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(options.port);
  errno = EINVAL;
  if (::inet_pton(AF_INET, options.address.c_str(), &address.sin_addr) != 1) fail("--url: no IPv4 address");
  fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd_ < 0) fail("cannot make a socket");
  const int on = 1;
  ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    const int error = errno;
    ::close(fd_);
    errno = error;
    fail("cannot connect to " + options.address + ":" + std::to_string(options.port));
  }
  ::fcntl(fd_, F_SETFL, O_NONBLOCK);
}

Peer::~Peer() {
  ::close(fd_);
}

void Peer::flush() {
  while (out_sent_ < out_.size()) {
    const ssize_t n = ::send(fd_, out_.data() + out_sent_, out_.size() - out_sent_, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return;  // full, or broken: then read() finds out
    out_sent_ += static_cast<std::size_t>(n);
  }
  out_.clear();
  out_sent_ = 0;
}

// Everything that is there: the epoll is edge-triggered.
void Peer::receive() {
  for (;;) {
    const std::size_t size = in_.size();
    in_.resize(size + kReadBytes);
    const ssize_t n = ::recv(fd_, in_.data() + size, kReadBytes, 0);
    in_.resize(size + static_cast<std::size_t>(n > 0 ? n : 0));
    if (n == static_cast<ssize_t>(kReadBytes) || (n < 0 && errno == EINTR)) continue;
    broken_ = n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK);
    return;
  }
}

bool Peer::take_answer(Fault& fault) {
  const std::string_view all = std::string_view(in_).substr(in_taken_);
  const std::size_t head_end = all.find("\r\n\r\n");
  if (head_end == std::string_view::npos) return false;
  const std::string_view head = all.substr(0, head_end);
  const std::size_t length = content_length(head);
  if (all.size() < head_end + 4 + length) return false;
  const std::string_view body = all.substr(head_end + 4, length);
  fault.clear();
  if (!head.starts_with(expected_.status_line)) {
    fault = "status " + std::string(head.substr(std::min<std::size_t>(9, head.size()), 3));
  } else if (!body.starts_with(expected_.body) && !(body.empty() && expected_.may_be_empty)) {
    fault = "wrong body";
  }
  in_taken_ += head_end + 4 + length;
  if (in_taken_ == in_.size()) {
    in_.clear();
    in_taken_ = 0;
  }
  return true;
}

}  // namespace kavach::bench
