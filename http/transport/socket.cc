#include "http/transport/socket.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

#include "engine/check.h"

namespace kavach::http {
namespace {

std::string openssl_reason() {
  const unsigned long code = ::ERR_get_error();
  ::ERR_clear_error();
  if (code == 0) return "unknown reason";
  char text[256];
  ::ERR_error_string_n(code, text, sizeof(text));
  return text;
}

int clamp_to_int(std::size_t size) {
  return static_cast<int>(std::min<std::size_t>(size, INT_MAX));
}

}  // namespace

Result<std::shared_ptr<const TlsContext>> TlsContext::load(const std::string& certificate_file,
                                                           const std::string& key_file) {
  ssl_ctx_st* raw = ::SSL_CTX_new(::TLS_server_method());
  KAVACH_CHECK(raw != nullptr, "OpenSSL has no TLS");
  std::shared_ptr<const TlsContext> context(new TlsContext(raw));
  ::SSL_CTX_set_min_proto_version(raw, TLS1_2_VERSION);
  // An idle connection keeps no record buffers; a write may be repeated from another address.
  ::SSL_CTX_set_mode(
      raw, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  ::SSL_CTX_set_options(raw, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
  if (::SSL_CTX_use_certificate_chain_file(raw, certificate_file.c_str()) != 1) {
    return failure("http.tls_certificate_file: cannot use " + certificate_file + ": " + openssl_reason());
  }
  if (::SSL_CTX_use_PrivateKey_file(raw, key_file.c_str(), SSL_FILETYPE_PEM) != 1) {
    return failure("http.tls_key_file: cannot use " + key_file + ": " + openssl_reason());
  }
  if (::SSL_CTX_check_private_key(raw) != 1) {
    return failure("http.tls_key_file: " + key_file + " does not belong to " + certificate_file);
  }
  return context;
}

TlsContext::~TlsContext() {
  ::SSL_CTX_free(context_);
}

Socket::Socket(TcpSocket socket, const std::shared_ptr<const TlsContext>& tls)
    : socket_(std::move(socket)), tls_(tls) {
  boost::system::error_code ignored;
  socket_.non_blocking(true, ignored);
  socket_.set_option(boost::asio::ip::tcp::no_delay(true), ignored);
  if (tls_ == nullptr) return;
  ssl_ = ::SSL_new(tls_->native());
  KAVACH_CHECK(ssl_ != nullptr, "out of memory for a TLS connection");
  ::SSL_set_fd(ssl_, socket_.native_handle());
  ::SSL_set_accept_state(ssl_);
}

Socket::Socket(boost::asio::io_context& io, Detached detached) : socket_(io), tls_(std::move(detached.tls_)) {
  boost::system::error_code error;
  socket_.assign(detached.protocol_, detached.descriptor_, error);
  if (error) return;
  detached.descriptor_ = -1;
  ssl_ = std::exchange(detached.ssl_, nullptr);
  socket_.non_blocking(true, error);
}

Socket::~Socket() {
  ::SSL_free(ssl_);
}

Socket::Detached::Detached(boost::asio::ip::tcp protocol, int descriptor, ssl_st* ssl,
                           std::shared_ptr<const TlsContext> tls)
    : protocol_(protocol), descriptor_(descriptor), ssl_(ssl), tls_(std::move(tls)) {}

Socket::Detached::Detached(Detached&& other) noexcept
    : protocol_(other.protocol_),
      descriptor_(std::exchange(other.descriptor_, -1)),
      ssl_(std::exchange(other.ssl_, nullptr)),
      tls_(std::move(other.tls_)) {}

Socket::Detached::~Detached() {
  ::SSL_free(ssl_);
  if (descriptor_ >= 0) ::close(descriptor_);
}

Socket::Detached Socket::detach() noexcept {
  boost::system::error_code error;
  const auto endpoint = socket_.local_endpoint(error);
  return {endpoint.protocol(), socket_.release(error), std::exchange(ssl_, nullptr), std::move(tls_)};
}

Socket::Moved Socket::tls_outcome(int result) noexcept {
  if (result > 0) return {Outcome::kDone, static_cast<std::size_t>(result)};
  const int error = ::SSL_get_error(ssl_, result);
  ::ERR_clear_error();
  switch (error) {
    case SSL_ERROR_WANT_READ:
      return {Outcome::kWouldRead};
    case SSL_ERROR_WANT_WRITE:
      return {Outcome::kWouldWrite};
    case SSL_ERROR_ZERO_RETURN:
      return {Outcome::kEnd};
    default:
      return {Outcome::kBroken};
  }
}

Socket::Moved Socket::read(char* to, std::size_t size) noexcept {
  if (ssl_ != nullptr) return tls_outcome(::SSL_read(ssl_, to, clamp_to_int(size)));
  for (;;) {
    const ssize_t n = ::recv(socket_.native_handle(), to, size, 0);
    if (n > 0) return {Outcome::kDone, static_cast<std::size_t>(n)};
    if (n == 0) return {Outcome::kEnd};
    if (errno == EINTR) continue;
    return {errno == EAGAIN || errno == EWOULDBLOCK ? Outcome::kWouldRead : Outcome::kBroken};
  }
}

Socket::Moved Socket::write(const char* from, std::size_t size) noexcept {
  if (ssl_ != nullptr) return tls_outcome(::SSL_write(ssl_, from, clamp_to_int(size)));
  for (;;) {
    const ssize_t n = ::send(socket_.native_handle(), from, size, MSG_NOSIGNAL);
    if (n >= 0) return {Outcome::kDone, static_cast<std::size_t>(n)};
    if (errno == EINTR) continue;
    return {errno == EAGAIN || errno == EWOULDBLOCK ? Outcome::kWouldWrite : Outcome::kBroken};
  }
}

bool Socket::has_buffered_input() const noexcept {
  return ssl_ != nullptr && ::SSL_has_pending(ssl_) == 1;
}

bool Socket::has_input() noexcept {
  char byte = 0;
  return has_buffered_input() ||
         ::recv(socket_.native_handle(), &byte, sizeof(byte), MSG_PEEK | MSG_DONTWAIT) > 0;
}

// Without it a peer cannot tell the end of an answer from a cut connection (RFC 8446 6.1).
void Socket::send_close_notify() noexcept {
  if (ssl_ == nullptr || ::SSL_is_init_finished(ssl_) != 1) return;
  if ((::SSL_get_shutdown(ssl_) & SSL_SENT_SHUTDOWN) == 0) ::SSL_shutdown(ssl_);
  ::ERR_clear_error();
}

std::string Socket::peer() const {
  boost::system::error_code error;
  const auto endpoint = socket_.remote_endpoint(error);
  return error ? std::string() : endpoint.address().to_string();
}

void Socket::shutdown_send() noexcept {
  send_close_notify();
  ::shutdown(socket_.native_handle(), SHUT_WR);
}

void Socket::close(bool reset) noexcept {
  if (!reset) send_close_notify();
  boost::system::error_code ignored;
  if (reset) socket_.set_option(boost::asio::socket_base::linger(true, 0), ignored);
  socket_.close(ignored);
}

}  // namespace kavach::http
