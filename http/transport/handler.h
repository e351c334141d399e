// Handler: what the transport knows of everything behind it. Request and Response: what passes between them.
//
// The transport knows HTTP and no organization. It calls one Handler per shard, on the shard's thread, with a
// complete request, and gets the answer through the Exchange, at once or later.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "engine/padded_buffer.h"

namespace kavach::http {

enum class Method : std::uint8_t { kGet, kHead, kPost, kPut, kPatch, kDelete, kOptions, kOther };

// Views into the connection's buffer, valid during Handler::handle() (see Exchange for what lives longer).
struct Request {
  Method method = Method::kOther;
  std::string_view path;   // as sent, without query; of an absolute-form target only its path
  std::string_view query;  // behind '?', as sent
  std::string_view authorization;
  std::string_view api_key;  // X-API-Key
  std::string_view content_type;
  std::string_view content_encoding;
  std::string_view if_none_match;     // of several lines the first
  std::string_view stripe_signature;  // Stripe-Signature
  std::string_view origin;            // (and below) of several lines the first
  std::string_view preflight_method;  // Access-Control-Request-Method
  std::string_view forwarded_for;     // X-Forwarded-For; of several lines the last
  // Whole, without chunk framing; bounds::kBodyPadding readable bytes stand behind it.
  std::string_view body;
};

struct Response {
  int status = 200;
  std::string_view body = {};  // copied by answer()
  std::string_view content_type = "application/json";
  std::string_view headers = {};  // more header lines, each ending in CRLF; copied by answer()
  bool close = false;             // end the connection after this answer
};

// One request that waits for its answer. Owned by the connection, which lives until the answer was given.
// Own thread of the shard.
class Exchange {
 public:
  const Request& request() const noexcept { return request_; }

  // A handler that answers later says what it still needs of the request, so that buffers are used again at
  // once, while they are warm: nothing more. The request's views end here.
  virtual void release_body() = 0;
  // the body: it stays valid while the taken buffer lives, however that is moved. The other views end here.
  virtual PaddedBuffer take_body() = 0;
  // A buffer from take_body(), for the pool. Before answer().
  virtual void give_back(PaddedBuffer buffer) = 0;

  // Another shard will do the work of this request and of others like it: a connection whose requests keep
  // saying so may move there once it is idle. A hint, during handle().
  virtual void prefer_shard(std::uint32_t shard) { static_cast<void>(shard); }

  // The address of whoever sent it, as text; empty where that is not known.
  virtual std::string peer() const { return {}; }

  // Exactly once, during handle() or later. The exchange must not be used afterwards.
  virtual void answer(const Response& response) = 0;

 protected:
  ~Exchange() = default;
  Request request_;
};

class Handler {
 public:
  virtual ~Handler() = default;

  // Takes a complete request; answers now or later.
  virtual void handle(Exchange& exchange) = 0;

  // Asked before a body is read that is too large, large, or announced with `Expect: 100-continue`: an answer
  // that needs no body (unknown path, wrong method, bad credential) spares both sides the transfer.
  // `request.body` is empty. The views of the Response must outlive the call.
  virtual std::optional<Response> refuse_early(const Request& request) = 0;
};

}  // namespace kavach::http
