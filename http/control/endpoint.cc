#include "http/control/endpoint.h"

#include <fmt/format.h>

#include "sink/store/control/agents.h"

namespace kavach::http {

Reply refusal(int status, std::string_view detail) {
  return {.status = status, .body = JsonOut().begin().text("detail", detail).end().take()};
}

Reply not_found(std::string_view what) {
  return refusal(404, fmt::format("{} not found", what));
}

Reply unknown_agent() {
  return not_found("Agent");
}

Reply invalid(Call& call) {
  return {.status = 422, .body = call.reader.take_errors()};
}

sink::StoreResult<bool> knows_agent(const Call& call) {
  return sink::has_agent(call.store, call.caller.org_id, call.path[0]);
}

std::vector<const Endpoint*> all_endpoints() {
  std::vector<const Endpoint*> all;
  for (const auto table :
       {auth_endpoints(), key_endpoints(), organization_endpoints(), agent_endpoints(), run_endpoints(),
        billing_endpoints(), stripe_webhook_endpoints(), pricing_endpoints(), dashboard_endpoints(),
        alert_endpoints(), sync_config_endpoints()}) {
    for (const Endpoint& endpoint : table) all.push_back(&endpoint);
  }
  return all;
}

}  // namespace kavach::http
