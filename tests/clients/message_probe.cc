// The messages of one breach, so that a test in another language can compare them with the SDK's.
//
// Arguments: dashboard URL, organization, agent, type of budget, period, threshold, limit, used, when it
// fired and when the budget resets (microseconds). Out, a line of JSON each: Slack, PagerDuty, webhook, mail.
#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <span>
#include <string>

#include "http/alerts/messages.h"
#include "http/outbound/mailer.h"

int main(int argc, char** argv) try {
  const std::span<char*> args(argv, static_cast<std::size_t>(argc));
  if (args.size() != 11) return 2;
  const std::string dashboard_url = args[1];
  const kavach::http::Breach breach{.org_name = args[2],
                                    .agent_name = args[3],
                                    .budget_type = args[4],
                                    .period = args[5],
                                    .threshold = std::stod(args[6]),
                                    .limit = std::stod(args[7]),
                                    .used = std::stod(args[8]),
                                    .fired_at = std::stoll(args[9]),
                                    .resets_at = std::stoll(args[10])};
  fmt::print("{}\n{}\n{}\n{}\n", kavach::http::slack_json(breach, dashboard_url),
             kavach::http::pagerduty_json(breach), kavach::http::webhook_json(breach),
             kavach::http::mail_json(kavach::http::alert_mail(breach, dashboard_url)));
  return 0;
} catch (const std::exception& e) {
  fmt::print(stderr, "message_probe: {}\n", e.what());
  return 1;
}
