#include "http/writer_node.h"

#include <chrono>
#include <thread>
#include <utility>

#include "engine/clock.h"
#include "engine/log.h"
#include "http/backends.h"
#include "http/signals.h"

namespace kavach::http {

WriterNode::WriterNode(Config config) : config_(std::move(config)) {}
WriterNode::~WriterNode() = default;

Status WriterNode::build() {
  auto alerts = open_alerts(config_);
  if (!alerts) return alerts.error();
  alerts_ = std::move(*alerts);
  auto writer = open_writer(config_, alerts_->usage_listener());
  if (!writer) return writer.error();
  writer_ = std::move(*writer);
  health_.database_ok = [this] { return writer_->healthy(); };
  health_.writer = [this] { return writer_health(*writer_); };

  runtime_ = std::make_unique<Runtime>(Runtime::Options{});
  workers_ = std::make_unique<WorkerPool>(WorkerPool::Options{.threads = 1});
  metrics_ = std::make_unique<MetricsHandler>(runtime_->shard(0), *workers_, registry_);
  router_.add(Method::kGet, "/healthz", healthz_);
  router_.add(Method::kGet, "/readyz", readyz_);
  router_.add(Method::kGet, "/v1/status", status_);
  router_.add(Method::kGet, "/metrics", *metrics_);
  writer_->metrics().add_to(registry_);
  alerts_->add_metrics(registry_);

  const auto port = static_cast<std::uint16_t>(config_.writer.port);
  if (Status free = Server::check_port_is_free(config_.http.address, port); !free) return free;
  ServerOptions options;
  options.address = config_.http.address;
  options.port = port;
  server_ = std::make_unique<Server>(runtime_->shard(0), router_, std::move(options), open_connections_);
  return server_->listen();
}

int WriterNode::run(const sigset_t& signals) {
  writer_->start();
  alerts_->start();
  runtime_->start();
  runtime_->shard(0).post([this] { server_->start(); });
  health_.ready = true;
  log::info("kavachd {} writes; {}:{} tells how it goes", KAVACH_VERSION, config_.http.address,
            server_->port());
  int signal = 0;
  while (::sigwait(&signals, &signal) != 0 || signal == SIGHUP) {
  }
  end_at_once_on_signal();
  health_.draining = true;
  log::info("stopping: the transaction under way is finished");
  writer_->stop(config_.http.drain_timeout_ms * kMicrosPerMilli);
  alerts_->stop();
  runtime_->shard(0).post([this] {
    server_->drain();
    server_->close_all();
  });
  const MonoMicros until = system_clock().mono() + kMicrosPerSecond;
  while (open_connections_ > 0 && system_clock().mono() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  runtime_->stop();
  workers_->stop();
  log::info("stopped");
  return 0;
}

}  // namespace kavach::http
