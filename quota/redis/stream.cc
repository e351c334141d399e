#include "quota/redis/stream.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <system_error>

#include "engine/check.h"

namespace kavach::quota {
namespace {

std::string openssl_reason() {
  const unsigned long code = ::ERR_get_error();
  ::ERR_clear_error();
  const char* text = code == 0 ? nullptr : ::ERR_reason_error_string(code);
  return text == nullptr ? "unknown reason" : text;
}

int clamp_to_int(std::size_t size) {
  return static_cast<int>(std::min<std::size_t>(size, INT_MAX));
}

// The name goes into the handshake as well, so that a server with several certificates shows the right one.
// An address may not stand there.
bool demand_name(ssl_st* ssl, const std::string& name) {
  if (::X509_VERIFY_PARAM_set1_ip_asc(::SSL_get0_param(ssl), name.c_str()) == 1) return true;
  ::ERR_clear_error();
  return ::SSL_set1_host(ssl, name.c_str()) == 1 && ::SSL_set_tlsext_host_name(ssl, name.c_str()) == 1;
}

}  // namespace

// --- RedisTls ----------------------------------------------------------------------------------------------

Result<std::shared_ptr<const RedisTls>> RedisTls::load(const std::string& ca_file) {
  ssl_ctx_st* raw = ::SSL_CTX_new(::TLS_client_method());
  KAVACH_CHECK(raw != nullptr, "OpenSSL has no TLS");
  std::shared_ptr<const RedisTls> tls(new RedisTls(raw));
  ::SSL_CTX_set_min_proto_version(raw, TLS1_2_VERSION);
  ::SSL_CTX_set_verify(raw, SSL_VERIFY_PEER, nullptr);
  // A write may be repeated from another address.
  ::SSL_CTX_set_mode(raw, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  ::SSL_CTX_set_options(raw, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
  if (ca_file.empty()) {
    if (::SSL_CTX_set_default_verify_paths(raw) != 1) {
      return failure("redis.ca_file: the system's certificates cannot be used: " + openssl_reason());
    }
  } else if (::SSL_CTX_load_verify_locations(raw, ca_file.c_str(), nullptr) != 1) {
    return failure("redis.ca_file: cannot use " + ca_file + ": " + openssl_reason());
  }
  return tls;
}

RedisTls::~RedisTls() {
  ::SSL_CTX_free(context_);
}

// --- RedisStream -------------------------------------------------------------------------------------------

RedisStream::~RedisStream() {
  ::SSL_free(ssl_);
}

RedisStream::Moved RedisStream::broken(int error) {
  reason_ = std::generic_category().message(error);
  return {Outcome::kBroken};
}

RedisStream::Outcome RedisStream::connect(const RedisAddress& address,
                                          const std::shared_ptr<const RedisTls>& tls,
                                          const std::string& server_name) {
  const int fd = ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return broken(errno).outcome;
  boost::system::error_code error;
  descriptor_.assign(fd, error);
  if (error) {
    ::close(fd);
    return broken(error.value()).outcome;
  }
  if (address.storage.ss_family != AF_UNIX) {
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }
  if (tls != nullptr) {
    tls_ = tls;
    ssl_ = ::SSL_new(tls->native());
    KAVACH_CHECK(ssl_ != nullptr, "out of memory for a TLS connection");
    if (!demand_name(ssl_, server_name)) {
      reason_ = "the host's name is none that a certificate could have";
      return Outcome::kBroken;
    }
    ::SSL_set_fd(ssl_, fd);
    ::SSL_set_connect_state(ssl_);
  }
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0) {
    // A Unix socket whose backlog is full says EAGAIN and does not go on by itself: another attempt is made
    // later.
    if (errno == EINPROGRESS) return Outcome::kWouldWrite;
    return broken(errno).outcome;
  }
  connected_ = true;
  return finish_connect();
}

RedisStream::Outcome RedisStream::finish_connect() {
  if (!connected_) {
    int error = 0;
    socklen_t size = sizeof(error);
    if (::getsockopt(descriptor_.native_handle(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
    if (error != 0) return broken(error).outcome;
    connected_ = true;
  }
  if (ssl_ == nullptr) return Outcome::kDone;
  errno = 0;
  const Moved moved = tls_outcome(::SSL_do_handshake(ssl_));
  if (moved.outcome == Outcome::kBroken) {
    const long verdict = ::SSL_get_verify_result(ssl_);
    if (verdict != X509_V_OK)
      reason_ = std::string("certificate: ") + ::X509_verify_cert_error_string(verdict);
  }
  if (moved.outcome == Outcome::kEnd) {
    reason_ = "closed during the TLS handshake";
    return Outcome::kBroken;
  }
  return moved.outcome;
}

RedisStream::Moved RedisStream::tls_outcome(int result) {
  if (result > 0) return {Outcome::kDone, static_cast<std::size_t>(result)};
  const int system_error = errno;
  switch (::SSL_get_error(ssl_, result)) {
    case SSL_ERROR_WANT_READ:
      return {Outcome::kWouldRead};
    case SSL_ERROR_WANT_WRITE:
      return {Outcome::kWouldWrite};
    case SSL_ERROR_ZERO_RETURN:
      return {Outcome::kEnd};
    case SSL_ERROR_SYSCALL:
      ::ERR_clear_error();
      if (system_error == 0) return {Outcome::kEnd};
      return broken(system_error);
    default:
      reason_ = "TLS: " + openssl_reason();
      return {Outcome::kBroken};
  }
}

RedisStream::Moved RedisStream::read(char* to, std::size_t size) {
  if (ssl_ != nullptr) {
    errno = 0;
    return tls_outcome(::SSL_read(ssl_, to, clamp_to_int(size)));
  }
  for (;;) {
    const ssize_t n = ::recv(descriptor_.native_handle(), to, size, 0);
    if (n > 0) return {Outcome::kDone, static_cast<std::size_t>(n)};
    if (n == 0) return {Outcome::kEnd};
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return {Outcome::kWouldRead};
    return broken(errno);
  }
}

RedisStream::Moved RedisStream::write(const char* from, std::size_t size) {
  if (ssl_ != nullptr) {
    errno = 0;
    return tls_outcome(::SSL_write(ssl_, from, clamp_to_int(size)));
  }
  for (;;) {
    const ssize_t n = ::send(descriptor_.native_handle(), from, size, MSG_NOSIGNAL);
    if (n >= 0) return {Outcome::kDone, static_cast<std::size_t>(n)};
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return {Outcome::kWouldWrite};
    return broken(errno);
  }
}

}  // namespace kavach::quota
