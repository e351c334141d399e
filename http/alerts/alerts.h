// Alerts: one process's part in alerts: it watches the rules of whoever's events it stores, and delivers what
// has fired.
//
// Owned by whoever stores events: a node with its own store, or the writer.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/clock.h"
#include "engine/metrics.h"
#include "http/alerts/alert_sender.h"
#include "http/alerts/alert_watcher.h"
#include "http/alerts/deliverer.h"
#include "http/outbound/mailer.h"
#include "http/outbound/secret_box.h"
#include "sink/store/control/control_store.h"
#include "sink/store/store.h"

namespace kavach::http {

struct AlertOptions {
  std::string secret_key;  // of the box that targets are sealed in
  std::string dashboard_url;
  // Of rules without a target; empty: none.
  std::string slack_webhook_url, pagerduty_routing_key, email;
  bool kill_on_server = false;  // kill rules mark agents as killed
  bool announces = false;       // each alert also goes to the sender's topic
  AlertSender::Options sender;
  Deliverer::Options delivery;
};

class Alerts {
 public:
  // REQUIRES: the clock outlives it.
  Alerts(AlertOptions options, std::unique_ptr<Mailer> mailer, std::unique_ptr<sink::RecordSender> records,
         sink::ControlStorePool::Open open, const Clock& clock = system_clock());
  ~Alerts();  // stop()

  // For the store that events go to. REQUIRES: this outlives that store.
  sink::UsageListener usage_listener();
  void add_metrics(MetricsRegistry& registry) const;

  void start();
  // What is not delivered stays in the queue. Idempotent.
  void stop();

 private:
  sink::StoreResult<sink::Firing> compose(sink::ControlStore& store, const std::string& org_id,
                                          const sink::CrossedRule& crossed) const;

  const AlertOptions options_;
  const SecretBox secrets_;
  sink::ControlStorePool stores_;
  AlertSender sender_;
  Deliverer deliverer_;
  AlertWatcher watcher_;
};

}  // namespace kavach::http
