// Messages of alerts: what the comparison with the SDK's templates does not reach.
#include <doctest/doctest.h>

#include <string>

#include "http/alerts/messages.h"

namespace kavach::http {
namespace {

constexpr std::string_view kDashboard = "https://kavach.example";

Breach make_breach() {
  return {.org_name = "Acme",
          .agent_name = "research-bot",
          .budget_type = "cost",
          .period = "daily",
          .threshold = 0.9,
          .limit = 50,
          .used = 45,
          .fired_at = 1'779'719'400 * kMicrosPerSecond,    // 2026-05-25T14:30:00Z
          .resets_at = 1'779'753'600 * kMicrosPerSecond};  // 2026-05-26T00:00:00Z
}

TEST_CASE("a webhook's body has sorted keys and no spaces") {
  CHECK(webhook_json(make_breach()) ==
        R"({"agent":"research-bot","budget_type":"Cost","current":"$45.00","event":"threshold.breach",)"
        R"("level":"ALERT","limit":"$50.00","pct":"90","period":"daily","remaining":"$5.00",)"
        R"("timestamp":"2026-05-25T14:30:00Z"})");
}

TEST_CASE("an organization's breach names the organization and no agent") {
  Breach breach = make_breach();
  breach.agent_name.clear();
  CHECK(webhook_json(breach).starts_with(R"({"agent":null,)"));
  const Mail mail = alert_mail(breach, kDashboard);
  CHECK(mail.subject == "[ALERT] Acme — 90% of Cost budget");
  CHECK(mail.text.starts_with("Organization \"Acme\" has crossed the 90% threshold on Cost.\n"));
  CHECK(mail.text.ends_with("\nView details: https://kavach.example/dashboard"));
  breach.org_name.clear();
  CHECK(alert_mail(breach, kDashboard).subject == "[ALERT] All agents — 90% of Cost budget");
}

TEST_CASE("a run's budget never resets") {
  Breach breach = make_breach();
  breach.period = "per_run";
  breach.resets_at = 0;
  CHECK(alert_mail(breach, kDashboard).text.find("  Period:     per_run\n  Resets:     never\n") !=
        std::string::npos);
}

TEST_CASE("a name is one segment of the dashboard's path") {
  Breach breach = make_breach();
  breach.agent_name = "a/b ?#é";
  CHECK(slack_json(breach, kDashboard)
            .find(R"("url":"https://kavach.example/dashboard/agents/a%2Fb%20%3F%23%C3%A9")") !=
        std::string::npos);
}

TEST_CASE("what is no UTF-8 does not spoil a body") {
  Breach breach = make_breach();
  breach.agent_name = "a\xff";
  CHECK(webhook_json(breach).starts_with("{\"agent\":\"a\xef\xbf\xbd\","));
  CHECK(alert_mail(breach, kDashboard).subject == "[ALERT] a\xef\xbf\xbd — 90% of Cost budget");
}

TEST_CASE("a routing key is added at sending and cannot break out") {
  const std::string body = pagerduty_json(make_breach());
  CHECK(body.find("routing_key") == std::string::npos);
  CHECK(with_routing_key(body, "k\"1") == R"({"routing_key":"k\"1",)" + body.substr(1));
}

// HMAC-SHA256 of RFC 4231, test case 2.
TEST_CASE("a webhook's signature is of its body") {
  const auto headers = webhook_signature("Jefe", 1'779'719'400, "what do ya want for nothing?");
  CHECK(headers[0].name == "X-AgentKavach-Signature");
  CHECK(headers[0].value == "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  CHECK(headers[1].name == "X-AgentKavach-Timestamp");
  CHECK(headers[1].value == "1779719400");
}

}  // namespace
}  // namespace kavach::http
