#include "http/alerts/alert_sender.h"

#include <fmt/format.h>

#include <utility>

#include "http/alerts/messages.h"
#include "sink/store/control/alert_rules.h"

namespace kavach::http {
namespace {

constexpr int kRequestTimeout = 408;
constexpr int kTooManyRequests = 429;
constexpr int kServerError = 500;

}  // namespace

AlertSender::AlertSender(Options options, std::unique_ptr<Mailer> mailer,
                         std::unique_ptr<sink::RecordSender> records, const Clock& clock)
    : options_(std::move(options)),
      clock_(clock),
      targets_(make_http_client({.timeout_ms = kAlertTimeoutMs,
                                 .allow_private = options_.allow_private_targets,
                                 .ca_file = options_.ca_file})),
      pagerduty_(make_http_client(
          {.timeout_ms = kAlertTimeoutMs, .allow_private = true, .ca_file = options_.ca_file})),
      mailer_(std::move(mailer)),
      records_(std::move(records)) {}

void AlertSender::abort() noexcept {
  aborted_ = true;
  targets_->abort();
  pagerduty_->abort();
  mailer_->abort();
}

SendResult AlertSender::not_sent(const Failure& why) const {
  using Kind = SendResult::Kind;
  const Kind kind = aborted_ ? Kind::kCancelled : why.retryable ? Kind::kNoAnswer : Kind::kRefused;
  return {.kind = kind, .error = why.message};
}

SendResult AlertSender::post(HttpClient& client, const HttpRequest& request, bool (*is_success)(int status)) {
  using Kind = SendResult::Kind;
  const auto answer = client.send(request);
  if (!answer) return not_sent(answer.error());
  const int status = answer->status;
  if (is_success(status)) return {.kind = Kind::kDelivered, .status = status, .error = {}};
  const bool may_pass = status == kRequestTimeout || status == kTooManyRequests;
  return {.kind = may_pass                 ? Kind::kNotNow
                  : status >= kServerError ? Kind::kNoAnswer
                                           : Kind::kRefused,
          .status = status,
          .error = fmt::format("the target answered {}", status),
          .retry_after_s = answer->retry_after_s};
}

SendResult AlertSender::send_mail(std::string_view body) {
  const auto mail = parse_mail_json(body);
  if (!mail) return {.kind = SendResult::Kind::kRefused, .error = mail.error().message};
  const Status sent = mailer_->send(*mail);
  return sent ? SendResult{} : not_sent(sent.error());
}

SendResult AlertSender::announce(const AlertMessage& message) {
  using Kind = SendResult::Kind;
  if (records_ == nullptr) return {.kind = Kind::kNoAnswer, .error = "this process has no Kafka"};
  const sink::OutgoingRecord record{.topic = options_.topic,
                                    .key = message.org_id,
                                    .value = message.body,
                                    .timestamp_ms = clock_.wall() / kMicrosPerMilli,
                                    .headers = {}};
  const Status sent = records_->send({&record, 1}, kAlertTimeoutMs * kMicrosPerMilli);
  if (sent) return {};
  return {.kind = Kind::kNoAnswer, .error = sent.error().message};
}

SendResult AlertSender::send(const AlertMessage& message) {
  if (message.channel == "email") return send_mail(message.body);
  if (message.channel == sink::kAnnouncementChannel) return announce(message);
  HttpRequest request{.url = std::string(message.target),
                      .headers = {{"Content-Type", "application/json"}, {"User-Agent", "AgentKavach/1.0"}},
                      .body = std::string(message.body),
                      .needs_body = false};
  if (message.channel == "pagerduty") {
    request.url = options_.pagerduty_url;
    request.body = with_routing_key(message.body, message.target);
    return post(*pagerduty_, request, [](int status) { return status == 202; });
  }
  if (message.channel == "slack") return post(*targets_, request, [](int status) { return status == 200; });
  if (!message.secret.empty()) {
    for (HttpHeader& header :
         webhook_signature(message.secret, clock_.wall() / kMicrosPerSecond, message.body))
      request.headers.push_back(std::move(header));
  }
  return post(*targets_, request, [](int status) { return status >= 200 && status < 300; });
}

}  // namespace kavach::http
