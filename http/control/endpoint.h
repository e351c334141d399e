// Endpoint: one row of the control API's table, from which routing, validation, 405 and /openapi.json come.
//
// A row names who may call it and what it takes and gives; its function is called on a worker's thread with
// everything read and checked, and returns the answer. What it may use is in Services.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/clock.h"
#include "engine/config.h"
#include "http/control/current.h"
#include "http/control/json_out.h"
#include "http/control/passwords.h"
#include "http/control/pricing.h"
#include "http/control/schema.h"
#include "http/control/tokens.h"
#include "http/outbound/secret_box.h"
#include "http/outbound/stripe.h"
#include "http/transport/handler.h"
#include "quota/tiers.h"
#include "sink/store/control/accounts.h"
#include "sink/store/control/control_store.h"

namespace kavach::http {

enum class Access : std::uint8_t {
  kPublic,
  kMember,  // any valid token (and likewise below: of a person and an organization that are there)
  kAdmin,   // an admin's or an owner's
  kOwner,
  kExpired,  // a token that is valid or ended within the grace: for its exchange
  kApiKey,   // an API key instead, as POST /v1/ingest takes it
};

// What the functions share; all of it may be used by any worker's thread.
struct Services {
  const Config& config;
  const Clock& clock;
  const TokenSigner& tokens;
  PasswordHasher& passwords;
  const SecretBox& secrets;  // for what is kept and must be sent again: targets and secrets of alerts
  Stripe& stripe;
  const Current<quota::TierTable>& tiers;  // read again on SIGHUP, and the prices too
  const Current<PriceList>& prices;
  // The directory (organizations, keys, limits, kills) changed: returns when this node's shards have it.
  std::function<void()> directory_changed;
  // A mail with a one-time code; never waits for a server.
  std::function<void(std::string_view to, sink::CodePurpose purpose, std::string_view code)> send_code;
};

struct Reply {
  int status = 200;
  std::string body = {};
  std::string headers = {};
};

// One request, read and checked.
struct Call {
  const Services& services;
  sink::ControlStore& store;
  const sink::Account& caller;  // empty with Access::kPublic; with kApiKey only org_id
  const Form& body;
  const Form& query;
  std::span<const std::string> path;  // its parameters, in their order
  std::string_view peer;              // whose address: for throttling
  // As they came, for what is not a form.
  std::string_view raw_body;
  std::string_view if_none_match;
  std::string_view stripe_signature;
  FormReader& reader;  // for errors that only the function can see
};

// A failure of the store passes through; it becomes the answer of a database that is away.
using Outcome = sink::StoreResult<Reply>;

struct Endpoint {
  Method method;
  std::string_view path;  // "/v1/agents/{name}/kill"
  std::string_view tag;
  std::string_view summary;
  Access access;
  const Schema* body = nullptr;   // null: it is not looked at
  const Schema* query = nullptr;  // null: none
  int status = 200;
  const Schema* reply = nullptr;     // null: no body
  std::span<const int> also = {};    // other statuses with the same body
  std::span<const int> errors = {};  // beside those that follow from the row
  Outcome (*run)(Call& call);
};

// `{"detail":"..."}`.
Reply refusal(int status, std::string_view detail);
Reply not_found(std::string_view what);  // "API key": API key not found
Reply unknown_agent();
Reply invalid(Call& call);  // 422 with what the reader found

// Whether the caller's organization has the agent that the path begins with.
sink::StoreResult<bool> knows_agent(const Call& call);
// For a table's row: `run` for a known agent, 404 for another.
template <Outcome (*run)(Call& call)>
Outcome of_known_agent(Call& call) {
  const auto known = knows_agent(call);
  if (!known) return known.error();
  return *known ? run(call) : unknown_agent();
}

// The tables of the resources.
std::span<const Endpoint> auth_endpoints();
std::span<const Endpoint> key_endpoints();
std::span<const Endpoint> organization_endpoints();
std::span<const Endpoint> agent_endpoints();
std::span<const Endpoint> run_endpoints();
std::span<const Endpoint> billing_endpoints();
std::span<const Endpoint> stripe_webhook_endpoints();
std::span<const Endpoint> pricing_endpoints();
std::span<const Endpoint> dashboard_endpoints();
std::span<const Endpoint> alert_endpoints();
std::span<const Endpoint> sync_config_endpoints();

// All of them, in their order.
std::vector<const Endpoint*> all_endpoints();

// The document of /openapi.json.
std::string openapi(std::span<const Endpoint* const> endpoints);

}  // namespace kavach::http
