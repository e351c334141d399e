// Router: path and method to the handler that serves them; everything else is `404` or `405`.
//
// One per shard (its handlers are that shard's own). Paths are matched as bytes after percent-decoding; a
// trailing slash is another path. HEAD is served by what serves GET, without the body.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "http/transport/handler.h"

namespace kavach::http {

class Router final : public Handler {
 public:
  // REQUIRES: before the first request; `handler` outlives the router; `path` begins with '/'.
  void add(Method method, std::string path, Handler& handler);

  // Asked about every path that no route has. REQUIRES: as add().
  void set_fallback(Handler& handler) { fallback_ = &handler; }

  void handle(Exchange& exchange) override;
  std::optional<Response> refuse_early(const Request& request) override;

 private:
  struct Route {
    Method method;
    std::string path;
    Handler* handler;
  };
  // The handler, or the refusal in `refusal`.
  Handler* match(const Request& request, Response& refusal);

  std::vector<Route> routes_;
  Handler* fallback_ = nullptr;
  std::string allow_;  // header line of the last 405
};

}  // namespace kavach::http
