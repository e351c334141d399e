// Backends: what the config names behind a node (the store, Kafka, the writer between them), opened with the
// options that the config says.
#pragma once

#include <memory>

#include "engine/config.h"
#include "engine/result.h"
#include "http/ops/health.h"
#include "sink/kafka/client.h"
#include "sink/store/store.h"
#include "sink/writer/writer.h"

namespace kavach::http {

// What store.kind names; with "none" the directory is in SQLite.
sink::StoreResult<std::unique_ptr<sink::Store>> open_store(const Config& config);
// The same, for a process that runs: it and its database are started together, in whatever order, so a
// Postgres that is away is waited for, until SIGTERM or SIGINT is pending.
sink::StoreResult<std::unique_ptr<sink::Store>> wait_for_store(const Config& config);

sink::KafkaOptions kafka_options(const Config& config);

// The writer of `kavachd writer`, and of `kavachd serve` with writer.enabled. Waits for the store as above;
// no broker has to be there.
Result<std::unique_ptr<sink::Writer>> open_writer(const Config& config);

WriterHealth writer_health(const sink::Writer& writer);

}  // namespace kavach::http
