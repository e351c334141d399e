#include "http/router.h"

#include <algorithm>
#include <array>
#include <utility>

#include "http/outbound/percent_code.h"

namespace kavach::http {
namespace {

constexpr std::string_view kNotFound = R"({"detail":"Not Found"})";
constexpr std::string_view kMethodNotAllowed = R"({"detail":"Method Not Allowed"})";

constexpr std::array<std::pair<Method, std::string_view>, 7> kMethodNames{{{Method::kGet, "GET"},
                                                                           {Method::kHead, "HEAD"},
                                                                           {Method::kPost, "POST"},
                                                                           {Method::kPut, "PUT"},
                                                                           {Method::kPatch, "PATCH"},
                                                                           {Method::kDelete, "DELETE"},
                                                                           {Method::kOptions, "OPTIONS"}}};

bool serves(Method route, Method asked) {
  return route == asked || (route == Method::kGet && asked == Method::kHead);
}

}  // namespace

void Router::add(Method method, std::string path, Handler& handler) {
  routes_.push_back({method, std::move(path), &handler});
}

Handler* Router::match(const Request& request, Response& refusal) {
  std::string decoded;
  std::string_view path = request.path;
  if (path.find('%') != std::string_view::npos) {
    decoded = percent_decode(path);
    path = decoded;
  }
  bool path_known = false;
  for (const Route& route : routes_) {
    if (route.path != path) continue;
    if (serves(route.method, request.method)) return route.handler;
    path_known = true;
  }
  if (!path_known && fallback_ != nullptr) return fallback_;
  if (!path_known) {
    refusal = {.status = 404, .body = kNotFound};
    return nullptr;
  }
  allow_ = "Allow: ";
  for (const auto& [method, name] : kMethodNames) {
    const bool served = std::any_of(routes_.begin(), routes_.end(), [&, asked = method](const Route& route) {
      return route.path == path && serves(route.method, asked);
    });
    if (served) allow_.append(allow_.size() > 7 ? ", " : "").append(name);
  }
  allow_ += "\r\n";
  refusal = {.status = 405, .body = kMethodNotAllowed, .headers = allow_};
  return nullptr;
}

void Router::handle(Exchange& exchange) {
  Response refusal;
  if (Handler* handler = match(exchange.request(), refusal)) return handler->handle(exchange);
  exchange.answer(refusal);
}

std::optional<Response> Router::refuse_early(const Request& request) {
  Response refusal;
  if (Handler* handler = match(request, refusal)) return handler->refuse_early(request);
  return refusal;
}

}  // namespace kavach::http
