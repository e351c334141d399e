// Backends: what the config names behind a node (the store, Kafka, the writer between them), opened with the
// options that the config says.
#pragma once

#include <memory>
#include <string>

#include "engine/config.h"
#include "engine/result.h"
#include "http/alerts/alerts.h"
#include "http/ops/health.h"
#include "http/outbound/mailer.h"
#include "sink/kafka/client.h"
#include "sink/store/control/control_store.h"
#include "sink/store/store.h"
#include "sink/writer/writer.h"

namespace kavach::http {

// What store.kind names; with "none" the directory is in SQLite.
sink::StoreResult<std::unique_ptr<sink::Store>> open_store(const Config& config);
// The same, for a process that runs: it and its database are started together, in whatever order, so a
// Postgres that is away is waited for, until SIGTERM or SIGINT is pending.
sink::StoreResult<std::unique_ptr<sink::Store>> wait_for_store(const Config& config);

// A connection of the control API, or of alerts, to the store that open_store() has made.
sink::StoreResult<std::unique_ptr<sink::ControlStore>> connect_control(const Config& config);

sink::KafkaOptions kafka_options(const Config& config);

// The writer of `kavachd writer`, and of `kavachd serve` with writer.enabled. Waits for the store as above;
// no broker has to be there. `listener`: of the store; may be empty.
Result<std::unique_ptr<sink::Writer>> open_writer(const Config& config, sink::UsageListener listener);

// What targets are sealed and tokens are signed with: control.secret_key, or the key file, made when missing.
Result<std::string> secret_key(const Config& config);
MailerOptions mailer_options(const Config& config);
// Of a process that stores events. REQUIRES: the store was opened once.
Result<std::unique_ptr<Alerts>> open_alerts(const Config& config);

WriterHealth writer_health(const sink::Writer& writer);

}  // namespace kavach::http
