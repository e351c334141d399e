// WriterNode: one running `kavachd writer`: the writer (sink/writer/writer.h), and a small listener for
// /healthz, /readyz, /v1/status and /metrics beside it.
//
// Start: writer -> listener -> ready. Stop (SIGTERM): readiness off -> the transaction under way finished and
// the group left -> listener closed -> exit 0. A second signal ends at once.
#pragma once

#include <signal.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "engine/config.h"
#include "engine/metrics.h"
#include "engine/result.h"
#include "engine/shard.h"
#include "engine/worker_pool.h"
#include "http/alerts/alerts.h"
#include "http/ops/health.h"
#include "http/ops/ops_handlers.h"
#include "http/router.h"
#include "http/transport/server.h"
#include "sink/writer/writer.h"

namespace kavach::http {

class WriterNode {
 public:
  explicit WriterNode(Config config);
  ~WriterNode();

  // Builds everything; nothing runs yet.
  Status build();
  // Runs until a signal says stop; returns the exit code. `signals` are blocked in every thread.
  int run(const sigset_t& signals);

 private:
  const Config config_;
  Health health_;
  std::atomic<std::int64_t> open_connections_{0};
  MetricsRegistry registry_;
  std::unique_ptr<Alerts> alerts_;
  std::unique_ptr<sink::Writer> writer_;
  std::unique_ptr<Runtime> runtime_;
  std::unique_ptr<WorkerPool> workers_;
  HealthzHandler healthz_;
  ReadyzHandler readyz_{health_};
  StatusHandler status_{health_};
  std::unique_ptr<MetricsHandler> metrics_;
  Router router_;
  std::unique_ptr<Server> server_;
};

}  // namespace kavach::http
