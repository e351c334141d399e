#include "http/backends.h"

#include <signal.h>

#include <chrono>
#include <cstdint>
#include <thread>
#include <utility>

#include "engine/clock.h"
#include "engine/log.h"
#include "http/outbound/secret_box.h"
#include "sink/writer/decode.h"
#include "sink/writer/store_for_writer.h"

namespace kavach::http {
namespace {

std::int64_t dedup_window_us(const Config& config) {
  return config.quota.dedup_window_hours * kMicrosPerHour;
}

}  // namespace

sink::StoreResult<std::unique_ptr<sink::Store>> open_store(const Config& config) {
  if (config.store.kind != "postgres")
    return sink::open_sqlite(config.store.path, system_clock(), dedup_window_us(config));
  return sink::open_postgres({.url = config.store.url,
                              .dedup_window_us = dedup_window_us(config),
                              .retention_days = config.store.retention_days,
                              .timeout_ms = config.store.reply_timeout_ms});
}

sink::StoreResult<std::unique_ptr<sink::Store>> wait_for_store(const Config& config) {
  constexpr auto kPause = std::chrono::milliseconds(200);
  for (bool is_told = false;; is_told = true) {
    auto store = open_store(config);
    if (store || !store.error().retryable || config.store.kind != "postgres") return store;
    sigset_t pending;
    if (::sigpending(&pending) == 0 &&
        (::sigismember(&pending, SIGTERM) == 1 || ::sigismember(&pending, SIGINT) == 1))
      return sink::StoreFailure{"told to stop while waiting for it: " + store.error().message, false};
    if (!is_told) log::warning("the store cannot be opened, trying again: {}", store.error().message);
    std::this_thread::sleep_for(kPause);
  }
}

sink::KafkaOptions kafka_options(const Config& config) {
  const Config::Kafka& kafka = config.kafka;
  const bool has_sasl = kafka.security.starts_with("sasl");
  return {.brokers = kafka.brokers,
          .security_protocol = kafka.security,
          .sasl_mechanism = has_sasl ? kafka.sasl_mechanism : "",
          .sasl_user = kafka.sasl_user,
          .sasl_password = kafka.sasl_password,
          .ca_file = kafka.ca_file,
          .compression = kafka.compression,
          .linger_us = kafka.linger_ms * kMicrosPerMilli,
          .in_flight_bytes_max = kafka.in_flight_bytes_max,
          .record_bytes_max = kafka.record_bytes_max,
          .session_timeout_us = config.writer.session_timeout_ms * kMicrosPerMilli};
}

sink::StoreResult<std::unique_ptr<sink::ControlStore>> connect_control(const Config& config) {
  if (config.store.kind != "postgres") return sink::connect_control_sqlite(config.store.path);
  return sink::connect_control_postgres(config.store.url, config.store.reply_timeout_ms);
}

Result<std::unique_ptr<sink::Writer>> open_writer(const Config& config, sink::UsageListener listener) {
  if (config.store.kind == "none")
    return failure("store.kind = \"none\" is no place for the writer to store in");
  auto consumer = sink::consumer_conf(kafka_options(config), config.writer.group);
  if (!consumer) return consumer.error();
  auto producer = sink::producer_conf(kafka_options(config));
  if (!producer) return producer.error();
  auto store = wait_for_store(config);
  if (!store) return failure("cannot open the store: " + store.error().message);
  (*store)->set_usage_listener(std::move(listener));
  return sink::Writer::create(sink::store_for_writer(std::move(*store), dedup_window_us(config)),
                              sink::record_decoder(), consumer->release(), producer->release(),
                              {.batch_events_max = static_cast<std::uint64_t>(config.writer.batch_events_max),
                               .batch_delay_us = config.writer.batch_delay_ms * kMicrosPerMilli,
                               .topic = config.kafka.topic,
                               .dead_letter_topic = config.kafka.dlq_topic});
}

Result<std::string> secret_key(const Config& config) {
  if (!config.control.secret_key.empty())
    return Result<std::string>(boost::system::in_place_value, config.control.secret_key);
  return load_or_make_key(config.journal.directory + "/control.key");
}

MailerOptions mailer_options(const Config& config) {
  using Kind = MailerOptions::Kind;
  const Config::Mail& mail = config.mail;
  return {.kind = mail.kind == "outbox"   ? Kind::kOutbox
                  : mail.kind == "smtp"   ? Kind::kSmtp
                  : mail.kind == "resend" ? Kind::kResend
                                          : Kind::kNone,
          .from = mail.from,
          .outbox_directory = mail.outbox_directory,
          .smtp_url = mail.smtp_url,
          .smtp_starttls = mail.smtp_security == "starttls",
          .smtp_user = mail.smtp_user,
          .smtp_password = mail.smtp_password,
          .ca_file = mail.ca_file,
          .resend_url = mail.resend_url,
          .resend_api_key = mail.resend_api_key};
}

Result<std::unique_ptr<Alerts>> open_alerts(const Config& config) {
  auto key = secret_key(config);
  if (!key) return key.error();
  if (config.control.secret_key.empty() && config.store.kind == "postgres") {
    log::warning(
        "control.secret_key is not set: targets of alerts can be read by processes with this key file alone");
  }
  MailerOptions mail = mailer_options(config);
  mail.timeout_ms = kAlertTimeoutMs;
  auto mailer = make_mailer(mail);
  if (!mailer) return mailer.error();
  std::unique_ptr<sink::RecordSender> records;
  if (!config.kafka.brokers.empty()) {
    auto conf = sink::producer_conf(kafka_options(config));
    if (!conf) return conf.error();
    auto sender = sink::RecordSender::create(conf->release());
    if (!sender) return sender.error();
    records = std::move(*sender);
  }
  const Config::Alerts& alerts = config.alerts;
  return std::make_unique<Alerts>(
      AlertOptions{.secret_key = std::move(*key),
                   .dashboard_url = alerts.dashboard_url,
                   .slack_webhook_url = alerts.slack_webhook_url,
                   .pagerduty_routing_key = alerts.pagerduty_routing_key,
                   .email = alerts.email,
                   .kill_on_server = alerts.kill_on_server,
                   .announces = records != nullptr,
                   .sender = {.allow_private_targets = alerts.allow_private_targets,
                              .pagerduty_url = alerts.pagerduty_url,
                              .topic = config.kafka.alerts_topic},
                   .delivery = {.workers = static_cast<std::uint32_t>(alerts.workers),
                                .first_retry_us = alerts.retry_ms * kMicrosPerMilli,
                                .give_up_us = alerts.retry_hours * kMicrosPerHour}},
      std::move(*mailer), std::move(records), [config] { return connect_control(config); });
}

WriterHealth writer_health(const sink::Writer& writer) {
  return {.ok = writer.healthy(),
          .lag_records = writer.metrics().lag_records.value(),
          .lag_seconds = writer.metrics().lag_seconds.value()};
}

}  // namespace kavach::http
