// Node: one running kavachd. Translates the config into the options of the parts, builds them and runs them.
//
// Start: store -> journal -> shipper -> what is remembered (http/restore.h) -> keys and policies -> shards ->
// listeners -> ready. Stop (SIGTERM): readiness off -> listeners closed, connections finished -> journal
// synced -> shards joined -> shipper caught up -> exit 0. A second signal ends at once. SIGHUP reloads what
// can be reloaded.
#pragma once

#include <signal.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine/config.h"
#include "engine/ids.h"
#include "engine/log.h"
#include "engine/metrics.h"
#include "engine/result.h"
#include "engine/shard.h"
#include "engine/worker_pool.h"
#include "http/alerts/alerts.h"
#include "http/auth/directory.h"
#include "http/auth/key_reports.h"
#include "http/control/control.h"
#include "http/membership.h"
#include "http/ops/health.h"
#include "http/transport/server.h"
#include "quota/dedup.h"
#include "sink/journal/journal.h"
#include "sink/kafka/shipper.h"
#include "sink/shipper.h"
#include "sink/store/postgres/change_listener.h"
#include "sink/store/store.h"
#include "sink/writer/writer.h"

namespace kavach::http {

// Exit code of what failed.
inline constexpr int kExitFailed = 1;

log::Level level_of(const std::string& name);
// Null when the config names no certificate.
Result<std::shared_ptr<const TlsContext>> load_tls(const Config& config);

class Node {
 public:
  // `read_config` reads the config once more, for SIGHUP.
  Node(Config config, std::function<Result<Config>()> read_config);
  ~Node();

  // Builds everything; nothing runs yet.
  Status build();
  // Runs until a signal says stop; returns the exit code. `signals` are blocked in every thread.
  int run(const sigset_t& signals);

 private:
  struct Lane;

  Status restore_lanes(sink::Store& store);
  Status open_listeners();
  void build_metrics();
  void reload();
  void drain();
  void for_each_lane(const std::function<void(Lane&)>& task);

  const std::function<Result<Config>()> read_config_;
  Config config_;
  std::uint16_t port_ = 0;
  Health health_;
  std::atomic<std::int64_t> open_connections_{0};
  std::atomic<std::size_t> lanes_accepting_{0};
  std::atomic<std::size_t> lanes_reloading_{0};
  quota::DedupHasher hasher_{Random().next()};
  std::unique_ptr<sink::Journal> journal_;
  std::unique_ptr<Alerts> alerts_;  // null: this process stores no events
  std::unique_ptr<sink::Shipper> shipper_;
  std::unique_ptr<sink::KafkaShipper> kafka_;  // follows the journal instead of shipper_
  std::unique_ptr<sink::Writer> writer_;       // null: none inside this process
  std::unique_ptr<Runtime> runtime_;
  std::unique_ptr<WorkerPool> workers_;
  std::unique_ptr<Membership> membership_;  // null: no Redis, the node is its own authority
  MetricsRegistry registry_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::unique_ptr<Directory> directory_;
  std::unique_ptr<KeyReports> key_reports_;
  std::unique_ptr<Control> control_;
  std::unique_ptr<sink::ChangeListener> listener_;  // null: not on Postgres
  std::thread discarder_;
  std::atomic<bool> discarding_{true};
};

}  // namespace kavach::http
