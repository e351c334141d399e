#include "http/node.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <utility>

#include "engine/bounds.h"
#include "engine/clock.h"
#include "http/backends.h"
#include "http/ingest/ingest_handler.h"
#include "http/ops/ops_handlers.h"
#include "http/restore.h"
#include "http/router.h"
#include "http/signals.h"
#include "quota/admission.h"
#include "quota/ledger.h"
#include "quota/limits.h"
#include "quota/tiers.h"

namespace kavach::http {
namespace {

// --- the options of the parts ------------------------------------------------------------------------------

// Descriptors for what is no connection: journal, store, listeners, a reload's files.
constexpr rlim_t kDescriptorsReserved = 128;

// As many connections as there are descriptors: without one for its files the node could not store.
std::uint64_t connections_max(const Config& config) {
  const auto wanted = static_cast<std::uint64_t>(config.http.connections_max);
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return wanted;
  const rlim_t possible =
      limit.rlim_cur > 2 * kDescriptorsReserved ? limit.rlim_cur - kDescriptorsReserved : limit.rlim_cur / 2;
  return std::min<std::uint64_t>(wanted, possible);
}

TransportLimits transport_limits(const Config& config) {
  TransportLimits limits;
  limits.header_bytes_max = static_cast<std::uint32_t>(config.http.header_bytes_max);
  limits.body_bytes_max = static_cast<std::uint64_t>(config.http.body_bytes_max);
  limits.header_timeout_us = config.http.header_timeout_ms * kMicrosPerMilli;
  limits.body_timeout_us = config.http.body_timeout_ms * kMicrosPerMilli;
  limits.write_timeout_us = config.http.write_timeout_ms * kMicrosPerMilli;
  limits.idle_timeout_us = config.http.idle_timeout_ms * kMicrosPerMilli;
  limits.connections_max = connections_max(config);
  return limits;
}

IngestHandler::Options ingest_options(const Config& config) {
  return {.parse = {.batch_events_max = static_cast<std::uint32_t>(config.ingest.batch_events_max)},
          .body_bytes_max = static_cast<std::uint64_t>(config.http.body_bytes_max),
          .rate_limit_headers = config.ingest.rate_limit_headers,
          .mode = config.kafka.brokers.empty() ? "direct" : "kafka",
          .receipt = {.wait_for_broker = config.kafka.receipt == "broker",
                      .refuse_when_away = config.kafka.receipt_when_away == "refuse",
                      .patience_us = config.kafka.receipt_timeout_ms * kMicrosPerMilli}};
}

quota::LimitModes limit_modes(const Config& config) {
  const auto mode = [](const std::string& name) {
    return name == "shadow" ? quota::LimitMode::kShadow : quota::LimitMode::kEnforce;
  };
  return {.daily = mode(config.quota.daily_mode),
          .burst = mode(config.quota.burst_mode),
          .agents = mode(config.quota.agents_mode),
          .budgets = mode(config.quota.budget_mode)};
}

sink::JournalOptions journal_options(const Config& config, std::uint32_t shards) {
  return {.directory = config.journal.directory,
          .shards = shards,
          .segment_bytes = static_cast<std::uint64_t>(config.journal.segment_bytes),
          .backlog_bytes_max = static_cast<std::uint64_t>(config.journal.backlog_bytes_max),
          .in_flight_bytes_max = static_cast<std::uint64_t>(config.journal.in_flight_bytes_max),
          .group_bytes_max = static_cast<std::uint64_t>(config.journal.group_bytes_max),
          .released_segments_kept = config.kafka.brokers.empty() ? 0U : 1U,  // see http/restore.h
          .on_corruption = config.journal.on_corruption == "skip" ? sink::CorruptionPolicy::kSkip
                                                                  : sink::CorruptionPolicy::kStop};
}

// Threads that are no shard and send to shards.
enum OutsideSender : std::uint32_t { kJournalThread, kKafkaThread, kOutsideSenders };

// A shard never waits for these threads, so it makes room.
void flush(Outbox& outbox) {
  while (!outbox.flush()) std::this_thread::sleep_for(std::chrono::microseconds(50));
}

std::uint32_t shard_count(const Config& config) {
  if (config.engine.shards > 0) return static_cast<std::uint32_t>(config.engine.shards);
  return std::min<std::uint32_t>(std::max(1U, std::thread::hardware_concurrency()), bounds::kShardsMax);
}

}  // namespace

log::Level level_of(const std::string& name) {
  if (name == "debug") return log::Level::kDebug;
  if (name == "warning") return log::Level::kWarning;
  if (name == "error") return log::Level::kError;
  if (name == "off") return log::Level::kOff;
  return log::Level::kInfo;
}

Result<std::shared_ptr<const TlsContext>> load_tls(const Config& config) {
  if (config.http.tls_certificate_file.empty()) return std::shared_ptr<const TlsContext>();
  return TlsContext::load(config.http.tls_certificate_file, config.http.tls_key_file);
}

// --- Node --------------------------------------------------------------------------------------------------

// One shard's own parts, in the order in which they need each other.
struct Node::Lane {
  KeyRing keys;
  quota::LocalFleet own_fleet;  // where no Redis is configured
  std::unique_ptr<quota::Ledger> ledger;
  std::unique_ptr<quota::Admission> admission;
  std::unique_ptr<IngestHandler> ingest;
  HealthzHandler healthz;
  std::unique_ptr<ReadyzHandler> readyz;
  std::unique_ptr<StatusHandler> status;
  std::unique_ptr<MetricsHandler> metrics;
  Router router;
  std::unique_ptr<Server> server;
};

Node::Node(Config config, std::function<Result<Config>()> read_config)
    : read_config_(std::move(read_config)), config_(std::move(config)) {}

Node::~Node() {
  if (discarder_.joinable()) {
    discarding_ = false;
    journal_->interrupt();
    discarder_.join();
  }
}

Status Node::build() {
  if (const std::uint64_t possible = connections_max(config_);
      possible < static_cast<std::uint64_t>(config_.http.connections_max)) {
    log::warning("http.connections_max is {}, the limit of open files allows {} (ulimit -n)",
                 config_.http.connections_max, possible);
  }
  const std::uint32_t shards = shard_count(config_);
  auto tiers = quota::TierTable::load(config_.quota.tiers_file);
  if (!tiers) return tiers.error();
  quota::TierTable plans = *tiers;  // what the control API shows

  auto store = wait_for_store(config_);
  if (!store) return failure("cannot open the store: " + store.error().message);

  auto journal = sink::Journal::open(journal_options(config_, shards));
  if (!journal) return journal.error();
  journal_ = std::move(*journal);
  const sink::RecoveryReport& found = journal_->recovery();
  log::info("journal: {} segments, {} frames, last {}; {} torn bytes cut, {} damaged frames skipped",
            found.segments, found.frames, found.last_seq, found.torn_bytes_cut, found.damaged_frames_skipped);

  const std::int64_t window_us = config_.quota.dedup_window_hours * kMicrosPerHour;
  if (!config_.kafka.brokers.empty()) {
    auto shipper = sink::KafkaShipper::create(
        *journal_, {.kafka = kafka_options(config_),
                    .topic = config_.kafka.topic,
                    .record_events_max = static_cast<std::size_t>(config_.kafka.record_events_max),
                    .journal_directory = config_.journal.directory,
                    .on_corruption = journal_options(config_, shards).on_corruption});
    if (!shipper) return shipper.error();
    kafka_ = std::move(*shipper);
    if (config_.writer.enabled) {
      auto alerts = open_alerts(config_);
      if (!alerts) return alerts.error();
      alerts_ = std::move(*alerts);
      auto writer = open_writer(config_, alerts_->usage_listener());
      if (!writer) return writer.error();
      writer_ = std::move(*writer);
    }
  } else if (config_.store.kind != "none") {
    auto own = wait_for_store(config_);
    if (!own) return failure("cannot open the store: " + own.error().message);
    auto alerts = open_alerts(config_);
    if (!alerts) return alerts.error();
    alerts_ = std::move(*alerts);
    (*own)->set_usage_listener(alerts_->usage_listener());
    auto shipper =
        sink::Shipper::create(*journal_, std::move(*own),
                              {.batch_events_max = static_cast<std::uint64_t>(config_.store.batch_events_max),
                               .batch_delay_us = config_.store.batch_delay_ms * kMicrosPerMilli,
                               .dedup_window_us = window_us,
                               .journal_directory = config_.journal.directory,
                               .on_corruption = journal_options(config_, shards).on_corruption});
    if (!shipper) return shipper.error();
    shipper_ = std::move(*shipper);
  }

  runtime_ = std::make_unique<Runtime>(
      Runtime::Options{.shards = shards,
                       .outside_senders = kOutsideSenders,
                       .pin = config_.engine.pin,
                       .spin_us = config_.engine.spin_us,
                       .turn_handlers_max = static_cast<std::uint32_t>(config_.engine.turn_handlers_max),
                       .turn_warn_us = config_.engine.turn_warn_ms * kMicrosPerMilli});
  workers_ = std::make_unique<WorkerPool>(
      WorkerPool::Options{.threads = static_cast<std::uint32_t>(config_.engine.workers)});

  if (!config_.redis.url.empty()) {
    auto membership = Membership::create(*runtime_, *workers_, config_, journal_->id());
    if (!membership) return membership.error();
    membership_ = std::move(*membership);
  }

  std::vector<KeyRing*> rings;
  std::vector<IngestHandler*> peers;
  for (std::uint32_t id = 0; id < shards; ++id) {
    Lane& lane = *lanes_.emplace_back(std::make_unique<Lane>());
    Shard& shard = runtime_->shard(id);
    quota::Fleet& fleet = membership_ == nullptr
                              ? lane.own_fleet
                              : membership_->add_shard([&lane](quota::OrgLedger& org, quota::Now now) {
                                  lane.admission->resume(org, now);
                                });
    lane.ledger = std::make_unique<quota::Ledger>(limit_modes(config_), fleet);
    lane.admission = std::make_unique<quota::Admission>(
        quota::DedupTable::Options{
            .window_hours = config_.quota.dedup_window_hours,
            .keys_max = static_cast<std::uint64_t>(config_.quota.dedup_keys_max) / shards + 1,
            .keys_expected = static_cast<std::uint64_t>(config_.quota.dedup_keys_expected) / shards},
        *lane.ledger);
    lane.ingest = std::make_unique<IngestHandler>(shard, lane.keys, *lane.admission, *journal_,
                                                  kafka_ == nullptr ? nullptr : &kafka_->progress(), hasher_,
                                                  ingest_options(config_));
    lane.readyz = std::make_unique<ReadyzHandler>(health_);
    lane.status = std::make_unique<StatusHandler>(health_);
    lane.metrics = std::make_unique<MetricsHandler>(shard, *workers_, registry_);
    lane.router.add(Method::kPost, "/v1/ingest", *lane.ingest);
    lane.router.add(Method::kGet, "/healthz", lane.healthz);
    lane.router.add(Method::kGet, "/readyz", *lane.readyz);
    lane.router.add(Method::kGet, "/v1/status", *lane.status);
    lane.router.add(Method::kGet, "/metrics", *lane.metrics);
    shard.at_tick([&lane, &shard, this] {
      lane.admission->on_tick(shard.wall_now());
      auto uses = lane.keys.take_uses();
      auto rejected = lane.keys.take_rejected();
      if (!uses.empty() || !rejected.empty()) key_reports_->add(std::move(uses), std::move(rejected));
    });
    rings.push_back(&lane.keys);
    peers.push_back(lane.ingest.get());
  }
  for (auto& lane : lanes_) lane->ingest->set_peers(peers);

  if (Status restored = restore_lanes(**store); !restored) return restored;
  auto directory = Directory::create(
      *runtime_, rings, std::move(*store), std::move(*tiers),
      [this](ShardId shard, std::shared_ptr<const quota::PolicyTable> policies) {
        lanes_[shard]->ledger->install(std::move(policies));
      },
      config_.auth.poll_ms * kMicrosPerMilli);
  if (!directory) return directory.error();
  directory_ = std::move(*directory);
  auto store_of_reports = open_store(config_);
  if (!store_of_reports) return failure("cannot open the store: " + store_of_reports.error().message);
  key_reports_ = std::make_unique<KeyReports>(std::move(*store_of_reports));

  health_.database_ok = [this] {
    return directory_->healthy() && (shipper_ == nullptr || shipper_->healthy()) &&
           (writer_ == nullptr || writer_->healthy());
  };
  if (kafka_ != nullptr) {
    health_.kafka = [this] {
      return FollowerHealth{.ok = kafka_->healthy(),
                            .lag_events = journal_->backlog_events(),
                            .lag_bytes = journal_->backlog_bytes(),
                            .lag_us = kafka_->lag_us(),
                            .problem = kafka_->problem()};
    };
    health_.receipts = [this] {
      ReceiptCounts sum;
      for (const auto& lane : lanes_) {
        const IngestMetrics& metrics = lane->ingest->metrics();
        sum.journal += metrics.receipts_journal.value();
        sum.broker += metrics.receipts_broker.value();
        sum.waiting += metrics.receipts_waiting.value();
      }
      return sum;
    };
  }
  if (shipper_ != nullptr) {
    health_.store = [this] {
      return FollowerHealth{.ok = shipper_->healthy(),
                            .lag_events = journal_->backlog_events(),
                            .lag_bytes = journal_->backlog_bytes(),
                            .lag_us = shipper_->lag_us()};
    };
  }
  if (writer_ != nullptr) health_.writer = [this] { return writer_health(*writer_); };
  health_.journal_ok = [this] { return journal_->healthy(); };
  if (membership_ != nullptr) {
    membership_->set_listener([this] { directory_->poll_now(); });
    health_.fleet = [this] { return membership_->health(); };
  }
  // An administrator's change is in force on this node when it is answered.
  constexpr std::int64_t kDirectoryPatience = 10 * kMicrosPerSecond;
  auto prices = PriceList::load(config_.pricing.file);
  if (!prices) return prices.error();
  auto control = Control::create(config_, std::move(plans), std::move(*prices), [this] {
    if (!directory_->catch_up(kDirectoryPatience))
      log::warning("control: a change is answered before it is in force");
  });
  if (!control) return control.error();
  control_ = std::move(*control);
  for (std::uint32_t id = 0; id < lanes_.size(); ++id)
    control_->add_shard(runtime_->shard(id), lanes_[id]->keys, lanes_[id]->router);
  if (Status listening = open_listeners(); !listening) return listening;
  build_metrics();
  return {};
}

Status Node::restore_lanes(sink::Store& store) {
  std::vector<HomeShard> shards;
  for (auto& lane : lanes_) shards.push_back({lane->admission->dedup(), *lane->ledger});
  const auto options = journal_options(config_, runtime_->size());
  return restore(store, *journal_, hasher_, shards,
                 {.journal_directory = options.directory,
                  .on_corruption = options.on_corruption,
                  .dedup_window_us = config_.quota.dedup_window_hours * kMicrosPerHour,
                  .is_stored_by_writer = kafka_ != nullptr,
                  .sent_seq = kafka_ != nullptr ? kafka_->acknowledged_seq() : 0,
                  .now = system_clock().wall()});
}

Status Node::open_listeners() {
  auto tls = load_tls(config_);
  if (!tls) return tls.error();
  port_ = static_cast<std::uint16_t>(config_.http.port);
  if (Status free = Server::check_port_is_free(config_.http.address, port_); !free) return free;
  for (std::uint32_t id = 0; id < lanes_.size(); ++id) {
    ServerOptions options;
    options.address = config_.http.address;
    options.port = port_;
    options.listen_backlog = static_cast<int>(config_.http.listen_backlog);
    options.limits = transport_limits(config_);
    options.tls = *tls;
    Lane& lane = *lanes_[id];
    lane.server =
        std::make_unique<Server>(runtime_->shard(id), lane.router, std::move(options), open_connections_);
    if (Status listening = lane.server->listen(); !listening) return listening;
    port_ = lane.server->port();  // with http.port = 0 the first one chooses
  }
  std::vector<Server*> servers;
  for (auto& lane : lanes_) servers.push_back(lane->server.get());
  for (Server* server : servers) server->set_peers(servers);
  return {};
}

void Node::build_metrics() {
  runtime_->add_metrics(registry_);
  journal_->metrics().add_to(registry_);
  const auto seconds = [](std::int64_t micros) {
    return static_cast<double>(micros) / static_cast<double>(kMicrosPerSecond);
  };
  if (shipper_ != nullptr) {
    shipper_->metrics().add_to(registry_);
    registry_.add_gauge("kavach_shipper_lag_seconds", "Age of the oldest batch that is being stored.",
                        [this, seconds] { return seconds(shipper_->lag_us()); });
  }
  if (kafka_ != nullptr) {
    kafka_->metrics().add_to(registry_);
    if (writer_ != nullptr) writer_->metrics().add_to(registry_);
    registry_.add_gauge("kavach_kafka_lag_seconds",
                        "Age of the oldest batch that was sent to Kafka and is not acknowledged.",
                        [this, seconds] { return seconds(kafka_->lag_us()); });
  }
  if (alerts_ != nullptr) alerts_->add_metrics(registry_);
  if (membership_ != nullptr) membership_->add_metrics(registry_);
  for (std::uint32_t id = 0; id < lanes_.size(); ++id) {
    lanes_[id]->server->metrics().add_to(registry_, id);
    lanes_[id]->ingest->metrics().add_to(registry_, id);
    lanes_[id]->admission->metrics().add_to(registry_, id);
    lanes_[id]->ledger->metrics().add_to(registry_, id);
  }
  registry_.add_gauge("kavach_journal_backlog_bytes",
                      "Durable in the journal, not yet in the store or in Kafka.",
                      [this] { return static_cast<double>(journal_->backlog_bytes()); });
  registry_.add_gauge("kavach_journal_backlog_events",
                      "Events durable in the journal, not yet in the store or in Kafka.",
                      [this] { return static_cast<double>(journal_->backlog_events()); });
  registry_.add_gauge(
      "kavach_journal_backlog_frames", "Batches durable in the journal, not yet in the store or in Kafka.",
      [this] {
        return static_cast<double>(journal_->durable_seq() -
                                   std::min(journal_->durable_seq(), journal_->released_seq()));
      });
  registry_.add_gauge("kavach_ready", "1 while the node takes requests.",
                      [this] { return health_.ready && !health_.draining ? 1.0 : 0.0; });
}

void Node::for_each_lane(const std::function<void(Lane&)>& task) {
  for (std::uint32_t id = 0; id < lanes_.size(); ++id) {
    runtime_->shard(id).post([&lane = *lanes_[id], task] { task(lane); });
  }
}

void Node::reload() {
  const auto refuse = [](const Failure& why) {
    log::error("reload: refused, the old settings stay: {}", why.message);
  };
  const auto wanted = read_config_();
  if (!wanted) return refuse(wanted.error());
  const auto merged = merge_live(config_, *wanted);
  if (!merged) return refuse(merged.error());
  const auto tls = load_tls(*merged);
  if (!tls) return refuse(tls.error());
  auto tiers = quota::TierTable::load(merged->quota.tiers_file);
  if (!tiers) return refuse(tiers.error());
  auto prices = PriceList::load(merged->pricing.file);
  if (!prices) return refuse(prices.error());
  for (const SettingChange& change : diff_config(config_, *wanted)) {
    log::info("reload: {}: {} -> {}{}", change.key, change.from, change.to,
              change.reload == Reload::kLive ? "" : " (takes effect with the next start)");
  }
  config_ = *merged;
  log::set_level(level_of(config_.log.level));
  control_->set_tiers(*tiers);
  control_->set_prices(std::move(*prices));
  directory_->set_tiers(std::move(*tiers));
  lanes_reloading_ += lanes_.size();
  for_each_lane([this, limits = transport_limits(config_), ingest = ingest_options(config_),
                 modes = limit_modes(config_), tls = *tls](Lane& lane) {
    lane.server->set_limits(limits);
    lane.server->set_tls(tls);
    lane.ingest->set_options(ingest);
    lane.ledger->set_modes(modes);
    if (--lanes_reloading_ == 0) log::info("reload: done");
  });
}

void Node::drain() {
  health_.draining = true;
  log::info("stopping: readiness is off");
  std::this_thread::sleep_for(std::chrono::milliseconds(config_.http.drain_delay_ms));
  lanes_accepting_ = lanes_.size();
  // Half of the time at most for Kafka, so that its being away cuts nobody off.
  const std::int64_t patience_us = config_.http.drain_timeout_ms * kMicrosPerMilli / 2;
  for_each_lane([this, patience_us](Lane& lane) {
    lane.ingest->limit_patience(patience_us);
    lane.server->drain();
    --lanes_accepting_;
  });
  const MonoMicros until = system_clock().mono() + config_.http.drain_timeout_ms * kMicrosPerMilli;
  while ((lanes_accepting_ > 0 || open_connections_ > 0) && system_clock().mono() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  if (const std::int64_t left = open_connections_.load(); left > 0) {
    log::warning("stopping: {} connections had not finished after http.drain_timeout_ms", left);
    for_each_lane([](Lane& lane) {
      lane.ingest->limit_patience(0);
      lane.server->close_all();
    });
  }
}

int Node::run(const sigset_t& signals) {
  journal_->start([this](std::uint32_t shard, std::span<sink::Frame* const> frames) {
    Outbox& outbox = runtime_->outside_outbox(kJournalThread);
    outbox.send(shard, IngestHandler::receipt_message(frames));
    flush(outbox);
  });
  if (kafka_ != nullptr) {
    kafka_->start([this](std::uint32_t shard) {
      Outbox& outbox = runtime_->outside_outbox(kKafkaThread);
      outbox.send(shard, lanes_[shard]->ingest->acknowledged_message());
      flush(outbox);
    });
    if (writer_ != nullptr) writer_->start();
  } else if (shipper_ != nullptr) {
    shipper_->start();
  } else {
    // store.kind = "none": nothing follows the journal, so what is durable is let go at once.
    discarder_ = std::thread([this] {
      while (discarding_) {
        journal_->wait_beyond(journal_->released_seq(), kMicrosPerSecond);
        journal_->release(journal_->durable_seq());
        // Not with every group: the wake-up would cost as much as the group.
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
      }
    });
  }
  if (alerts_ != nullptr) alerts_->start();
  directory_->start();
  key_reports_->start();
  if (config_.store.kind == "postgres") {
    listener_ = std::make_unique<sink::ChangeListener>(config_.store.url, [this] { directory_->poll_now(); });
  }
  runtime_->start();
  if (membership_ != nullptr) membership_->join();
  for_each_lane([](Lane& lane) { lane.server->start(); });
  health_.ready = true;
  log::info("kavachd {} listens on {}:{} ({} shards{})", KAVACH_VERSION, config_.http.address, port_,
            lanes_.size(), config_.http.tls_certificate_file.empty() ? "" : ", TLS");

  for (;;) {
    int signal = 0;
    if (::sigwait(&signals, &signal) != 0) continue;
    if (signal == SIGHUP) {
      reload();
      continue;
    }
    break;
  }
  end_at_once_on_signal();
  drain();
  control_->stop();
  journal_->stop();
  if (membership_ != nullptr) membership_->leave();
  runtime_->stop();
  workers_->stop();
  for (auto& lane : lanes_)
    key_reports_->add(lane->keys.take_uses(), lane->keys.take_rejected());  // since the last tick
  listener_.reset();
  directory_->stop();
  key_reports_->stop();
  if (kafka_ != nullptr) kafka_->stop(config_.http.drain_timeout_ms * kMicrosPerMilli);
  if (writer_ != nullptr) writer_->stop(config_.http.drain_timeout_ms * kMicrosPerMilli);
  if (shipper_ != nullptr) shipper_->stop(config_.http.drain_timeout_ms * kMicrosPerMilli);
  if (alerts_ != nullptr) alerts_->stop();
  log::info("stopped");
  return 0;
}

}  // namespace kavach::http
