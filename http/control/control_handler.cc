#include "http/control/control_handler.h"

#include <algorithm>
#include <array>
#include <exception>
#include <utility>

#include "engine/log.h"
#include "http/auth/authenticate.h"
#include "http/ingest/inflate.h"

namespace kavach::http {
namespace {

constexpr std::string_view kNotFound = R"({"detail":"Not Found"})";
constexpr std::string_view kMethodNotAllowed = R"({"detail":"Method Not Allowed"})";
constexpr std::string_view kBusy = R"({"detail":"Server is busy, retry later"})";
constexpr std::string_view kRetryAfter = "Retry-After: 1\r\n";
constexpr std::string_view kBearer = "WWW-Authenticate: Bearer\r\n";
// Inflated; no body of the control API is near it.
constexpr std::uint64_t kBodyBytesMax = std::uint64_t{1} << 20;

constexpr std::array<std::pair<Method, std::string_view>, 5> kMethods{{{Method::kGet, "GET"},
                                                                       {Method::kPost, "POST"},
                                                                       {Method::kPut, "PUT"},
                                                                       {Method::kPatch, "PATCH"},
                                                                       {Method::kDelete, "DELETE"}}};

std::vector<std::string_view> split(std::string_view path) {
  std::vector<std::string_view> segments;
  while (!path.empty()) {
    path.remove_prefix(1);  // the slash
    const std::string_view segment = path.substr(0, path.find('/'));
    segments.push_back(segment);
    path.remove_prefix(segment.size());
  }
  return segments;
}

bool equals_ignoring_case(std::string_view text, std::string_view lower) noexcept {
  return text.size() == lower.size() &&
         std::equal(text.begin(), text.end(), lower.begin(), [](char a, char b) {
           return (a >= 'A' && a <= 'Z' ? static_cast<char>(a - 'A' + 'a') : a) == b;
         });
}

// The token of `Authorization: Bearer <token>`; empty: none.
std::string_view bearer_of(std::string_view authorization) noexcept {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() <= kScheme.size()) return {};
  if (!equals_ignoring_case(authorization.substr(0, kScheme.size()), kScheme)) return {};
  authorization.remove_prefix(authorization.find_first_not_of(' ', kScheme.size() - 1) ==
                                      std::string_view::npos
                                  ? authorization.size()
                                  : authorization.find_first_not_of(' ', kScheme.size() - 1));
  return authorization;
}

bool is_json(std::string_view content_type) noexcept {
  const std::string_view type = content_type.substr(0, content_type.find(';'));
  return content_type.empty() || type.find("json") != std::string_view::npos;
}

bool may(Access access, std::string_view role) noexcept {
  switch (access) {
    case Access::kOwner:
      return role == "owner";
    case Access::kAdmin:
      return role == "owner" || role == "admin";
    case Access::kPublic:
    case Access::kMember:
    case Access::kExpired:
    case Access::kApiKey:
      break;
  }
  return true;
}

Reply unauthorized(std::string_view detail) {
  Reply reply = refusal(401, detail);
  reply.headers = kBearer;
  return reply;
}

}  // namespace

// What a worker needs of a request: the connection's buffers are the next request's by then.
struct ControlHandler::Job {
  Exchange* exchange;
  const Endpoint* endpoint;
  std::string org_id;  // with Access::kApiKey: whose key it is
  std::vector<std::string> parameters;
  std::string query, authorization, content_type, content_encoding, body, peer, if_none_match,
      stripe_signature;
  std::string more_headers;  // of whatever the answer is
};

ControlHandler::ControlHandler(Shard& shard, KeyRing& keys, WorkerPool& workers,
                               sink::ControlStorePool& stores, const Services& services,
                               const Origins& origins, const TrustedProxies& proxies,
                               std::span<const Endpoint* const> endpoints)
    : shard_(shard),
      keys_(keys),
      workers_(workers),
      stores_(stores),
      services_(services),
      origins_(origins),
      proxies_(proxies) {
  for (const Endpoint* const endpoint : endpoints) routes_.push_back({endpoint, split(endpoint->path)});
}

ControlHandler::~ControlHandler() = default;

// Literal segments before parameters: `kill-all` is an agent's name only where no row says it.
const Endpoint* ControlHandler::match(const Request& request, std::vector<std::string>& parameters,
                                      Response& refusal) {
  const auto asked = split(request.path);
  const Method method = request.method == Method::kHead ? Method::kGet : request.method;
  const Route* best = nullptr;
  std::array<bool, kMethods.size()> served{};
  const auto literals = [](const Route& route) {
    return std::count_if(route.segments.begin(), route.segments.end(),
                         [](std::string_view segment) { return !segment.starts_with('{'); });
  };
  for (const Route& route : routes_) {
    const bool fits =
        std::equal(route.segments.begin(), route.segments.end(), asked.begin(), asked.end(),
                   [](std::string_view own, std::string_view sent) {
                     return own.starts_with('{') ? !sent.empty() : own == sent || own == decode_path(sent);
                   });
    if (!fits) continue;
    for (std::size_t i = 0; i < kMethods.size(); ++i)
      served[i] = served[i] || kMethods[i].first == route.endpoint->method;
    if (route.endpoint->method == method && (best == nullptr || literals(route) > literals(*best)))
      best = &route;
  }
  if (best != nullptr) {
    for (std::size_t i = 0; i < asked.size(); ++i) {
      if (best->segments[i].starts_with('{')) parameters.push_back(decode_path(asked[i]));
    }
    return best->endpoint;
  }
  refusal = {.status = 404, .body = kNotFound};
  if (std::find(served.begin(), served.end(), true) == served.end()) return nullptr;
  allow_.clear();
  for (std::size_t i = 0; i < kMethods.size(); ++i) {
    if (served[i]) allow_.append(allow_.empty() ? "" : ", ").append(kMethods[i].second);
  }
  allow_header_ = "Allow: " + allow_ + "\r\n";
  refusal = {.status = 405, .body = kMethodNotAllowed, .headers = allow_header_};
  return nullptr;
}

std::optional<Response> ControlHandler::refuse_early(const Request& request) {
  std::vector<std::string> parameters;
  Response refusal;
  const Endpoint* const endpoint = match(request, parameters, refusal);
  const bool is_refused =
      endpoint == nullptr || (endpoint->access == Access::kApiKey &&
                              authenticate(keys_, request, shard_.wall_now(), refusal) == nullptr);
  if (!is_refused) return std::nullopt;
  early_headers_ = std::string(refusal.headers) + origins_.headers(request.origin);
  refusal.headers = early_headers_;
  return refusal;
}

void ControlHandler::answer(Exchange& exchange, Response response) const {
  const std::string headers = std::string(response.headers) + origins_.headers(exchange.request().origin);
  response.headers = headers;
  exchange.answer(response);
}

void ControlHandler::handle(Exchange& exchange) {
  shard_.note_activity("control");
  auto job = std::make_shared<Job>();
  Response refusal;
  const Request& request = exchange.request();
  job->endpoint = match(request, job->parameters, refusal);
  if (job->endpoint == nullptr) {
    const bool is_preflight = request.method == Method::kOptions && refusal.status == 405 &&
                              !request.preflight_method.empty() && !origins_.empty();
    if (!is_preflight) return answer(exchange, refusal);
    const std::string headers = origins_.preflight_headers(request.origin, allow_);
    return exchange.answer({.status = 204, .headers = headers});
  }
  if (job->endpoint->access == Access::kApiKey) {
    const ApiKey* const key = authenticate(keys_, request, shard_.wall_now(), refusal);
    if (key == nullptr) return answer(exchange, refusal);
    job->org_id = keys_.table().org_of(*key).id.text();
  }
  job->exchange = &exchange;
  job->query = request.query;
  job->authorization = request.authorization;
  job->content_type = request.content_type;
  job->content_encoding = request.content_encoding;
  job->body = request.body;
  job->peer = proxies_.client(exchange.peer(), request.forwarded_for);
  job->more_headers = origins_.headers(request.origin);
  job->if_none_match = request.if_none_match;
  job->stripe_signature = request.stripe_signature;
  exchange.release_body();
  if (workers_.try_post([this, job] { serve(*job); })) return;
  const std::string headers = std::string(kRetryAfter) + job->more_headers;
  exchange.answer({.status = 429, .body = kBusy, .headers = headers});
}

// On a worker's thread.
void ControlHandler::serve(Job& job) const {
  Reply reply;
  try {
    reply = answer_to(job);
  } catch (const std::exception& error) {
    log::error("control: {} {}: {}", job.endpoint->summary, job.endpoint->path, error.what());
    reply = refusal(500, "Internal Server Error");
  }
  reply.headers += job.more_headers;
  // The exchange is answered on its own shard; it lives until then.
  shard_.post([exchange = job.exchange, reply = std::move(reply)] {
    exchange->answer({.status = reply.status, .body = reply.body, .headers = reply.headers});
  });
}

Reply ControlHandler::answer_to(Job& job) const {
  const Endpoint& endpoint = *job.endpoint;
  const auto failed = [&](const sink::StoreFailure& failure) -> Reply {
    log::error("control: {}: {}", endpoint.path, failure.message);
    if (!failure.retryable) return refusal(500, "Internal Server Error");
    Reply away = refusal(503, "Database unavailable, retry later");
    away.headers = kRetryAfter;
    return away;
  };
  auto store = stores_.take();
  if (!store) return failed(store.error());

  sink::Account caller;
  if (endpoint.access == Access::kApiKey) {
    caller.org_id = job.org_id;
  } else if (endpoint.access != Access::kPublic) {
    const std::string_view token = bearer_of(job.authorization);
    if (token.empty()) return unauthorized("Missing or malformed Authorization header");
    const auto claims = services_.tokens.check(
        token, services_.clock.wall(), endpoint.access == Access::kExpired ? TokenSigner::kGraceSeconds : 0);
    if (!claims) return unauthorized("Invalid or expired token");
    auto account = sink::account_of(**store, claims->user_id, claims->org_id);
    if (!account) return failed(account.error());
    if (!*account || !(*account)->active || (*account)->token_epoch != claims->epoch)
      return unauthorized("Invalid or expired token");
    caller = std::move(**account);
    if (!may(endpoint.access, caller.role)) return refusal(403, "Insufficient permissions");
  }

  FormReader reader;
  Form body, query;
  if (endpoint.body != nullptr) {
    const std::string_view encoding = job.content_encoding;
    const bool gzip = equals_ignoring_case(encoding, "gzip") || equals_ignoring_case(encoding, "x-gzip");
    if (!gzip && !encoding.empty() && !equals_ignoring_case(encoding, "identity"))
      return refusal(415, "Unsupported Content-Encoding");
    if (gzip) {
      Inflater inflater;
      PaddedBuffer inflated;
      InflateError error{};
      if (!inflater.inflate(job.body, kBodyBytesMax, inflated, error)) {
        return error == InflateError::kCorrupt ? refusal(400, "Invalid gzip body")
                                               : refusal(413, "Request body too large");
      }
      job.body = inflated.view();
    }
    if (job.body.size() > kBodyBytesMax) return refusal(413, "Request body too large");
    reader.read_body(*endpoint.body, job.body, is_json(job.content_type), body);
  }
  if (endpoint.query != nullptr) reader.read_query(*endpoint.query, job.query, query);
  if (!reader.is_sound()) return {.status = 422, .body = reader.take_errors()};

  Call call{.services = services_,
            .store = **store,
            .caller = caller,
            .body = body,
            .query = query,
            .path = job.parameters,
            .peer = job.peer,
            .raw_body = job.body,
            .if_none_match = job.if_none_match,
            .stripe_signature = job.stripe_signature,
            .reader = reader};
  auto outcome = endpoint.run(call);
  return outcome ? std::move(*outcome) : failed(outcome.error());
}

}  // namespace kavach::http
