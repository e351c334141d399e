#include "http/alerts/alerts.h"

#include <utility>

#include "engine/calendar.h"
#include "http/alerts/messages.h"

namespace kavach::http {
namespace {

// 0: never.
WallMicros next_reset(std::string_view period, WallMicros now) {
  if (period == "daily") return start_of_day(day_of(now) + 1);
  return period == "monthly" ? start_of_month(month_of(now) + 1) : 0;
}

}  // namespace

Alerts::Alerts(AlertOptions options, std::unique_ptr<Mailer> mailer,
               std::unique_ptr<sink::RecordSender> records, sink::ControlStorePool::Open open,
               const Clock& clock)
    : options_(std::move(options)),
      secrets_(options_.secret_key),
      stores_(std::move(open)),
      sender_(options_.sender, std::move(mailer), std::move(records), clock),
      deliverer_(
          options_.delivery, stores_, secrets_,
          [this](const AlertMessage& message) { return sender_.send(message); }, clock),
      watcher_(
          stores_,
          [this](sink::ControlStore& store, const std::string& org_id, const sink::CrossedRule& crossed) {
            return compose(store, org_id, crossed);
          },
          [this] { deliverer_.wake(); }, clock) {}

Alerts::~Alerts() {
  stop();
}

sink::UsageListener Alerts::usage_listener() {
  return [this](std::span<const sink::UsedName> agents, std::span<const sink::UsedName> runs) {
    watcher_.on_usage(agents, runs);
  };
}

void Alerts::add_metrics(MetricsRegistry& registry) const {
  watcher_.add_metrics(registry);
  deliverer_.metrics().add_to(registry);
}

void Alerts::start() {
  deliverer_.start();
  watcher_.start();
}

void Alerts::stop() {
  watcher_.stop();
  sender_.abort();
  deliverer_.stop();
}

sink::StoreResult<sink::Firing> Alerts::compose(sink::ControlStore& store, const std::string& org_id,
                                                const sink::CrossedRule& crossed) const {
  const Breach breach{.org_name = {},
                      .agent_name = crossed.rule.agent_name,
                      .budget_type = crossed.budget.type,
                      .period = crossed.budget.period,
                      .threshold = crossed.rule.threshold,
                      .limit = crossed.budget.limit,
                      .used = crossed.budget.used,
                      .fired_at = crossed.at,
                      .resets_at = next_reset(crossed.budget.period, crossed.at)};
  sink::Firing firing{.level = std::string(alert_level(breach.threshold)),
                      .message = alert_summary(breach),
                      .error = {},
                      .delivery = {},
                      .announcement = {}};
  const std::string& channel = crossed.rule.channel;
  if (options_.announces)
    firing.announcement = announcement_json(breach, org_id, channel, crossed.period_key);
  if (channel == "kill") {
    firing.kills = options_.kill_on_server;
    return firing;
  }
  sink::Delivery delivery;
  if (channel == "email") {
    std::string to = options_.email;
    if (!crossed.rule.target_sealed.empty()) {
      auto opened = secrets_.open(crossed.rule.target_sealed);
      if (!opened) {
        firing.error = opened.error().message;
        return firing;
      }
      to = std::move(*opened);
    } else if (to.empty()) {
      auto owner = sink::owner_address(store, org_id);
      if (!owner) return owner.error();
      to = std::move(*owner);
    }
    if (!to.empty()) {
      Mail mail = alert_mail(breach, options_.dashboard_url);
      mail.id = store.new_id().text();
      mail.to = {std::move(to)};
      delivery.body = mail_json(mail);
    }
  } else {
    const std::string& spare = channel == "slack"       ? options_.slack_webhook_url
                               : channel == "pagerduty" ? options_.pagerduty_routing_key
                                                        : std::string();
    delivery.target_sealed = crossed.rule.target_sealed;
    if (delivery.target_sealed.empty() && !spare.empty()) delivery.target_sealed = secrets_.seal(spare);
    delivery.secret_sealed = crossed.rule.secret_sealed;
    if (!delivery.target_sealed.empty()) {
      delivery.body = channel == "slack"       ? slack_json(breach, options_.dashboard_url)
                      : channel == "pagerduty" ? pagerduty_json(breach)
                                               : webhook_json(breach);
    }
  }
  if (delivery.body.empty()) {
    firing.error = "it has no target, and there is none for rules without one";
  } else {
    firing.delivery = std::move(delivery);
  }
  return firing;
}

}  // namespace kavach::http
