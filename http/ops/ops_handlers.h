// Operations endpoints: `/healthz`, `/readyz`, `/v1/status`, `/metrics`. No credential (contract section 8).
#pragma once

#include <optional>
#include <string>

#include "engine/metrics.h"
#include "engine/shard.h"
#include "engine/worker_pool.h"
#include "http/ops/health.h"
#include "http/transport/handler.h"

namespace kavach::http {

// A large body of a request that needs none.
Response refuse_body() noexcept;

// Liveness: the loop turns. Checks nothing else, so that a slow database does not get the process killed.
class HealthzHandler final : public Handler {
 public:
  void handle(Exchange& exchange) override;
  std::optional<Response> refuse_early(const Request&) override { return refuse_body(); }
};

// Readiness, for the load balancer: 200, or 503 with the reason while starting, draining or without a
// journal.
class ReadyzHandler final : public Handler {
 public:
  explicit ReadyzHandler(const Health& health) : health_(health) {}
  void handle(Exchange& exchange) override;
  std::optional<Response> refuse_early(const Request&) override { return refuse_body(); }

 private:
  const Health& health_;
};

// What is up and what is down; always 200.
class StatusHandler final : public Handler {
 public:
  explicit StatusHandler(const Health& health) : health_(health) {}
  void handle(Exchange& exchange) override;
  std::optional<Response> refuse_early(const Request&) override { return refuse_body(); }

 private:
  const Health& health_;
};

// Prometheus text. Rendering takes a millisecond, so a worker does it.
class MetricsHandler final : public Handler {
 public:
  MetricsHandler(Shard& shard, WorkerPool& workers, const MetricsRegistry& registry)
      : shard_(shard), workers_(workers), registry_(registry) {}
  void handle(Exchange& exchange) override;
  std::optional<Response> refuse_early(const Request&) override { return refuse_body(); }

 private:
  Shard& shard_;
  WorkerPool& workers_;
  const MetricsRegistry& registry_;
};

}  // namespace kavach::http
