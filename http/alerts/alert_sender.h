// AlertSender: sends one message of an alert now, the way that its channel wants.
//
// Blocks for up to ten seconds. Any thread, several at a time; never a shard's. To Kafka goes one at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "engine/clock.h"
#include "engine/result.h"
#include "http/outbound/http_client.h"
#include "http/outbound/mailer.h"
#include "sink/writer/dead_letters.h"

namespace kavach::http {

inline constexpr std::int64_t kAlertTimeoutMs = 10'000;

struct AlertMessage {
  std::string_view channel;  // email, slack, pagerduty, webhook, kafka
  std::string_view org_id;
  std::string_view target;  // a URL or a routing key; of a mail the body says it
  std::string_view secret;  // that a webhook is signed with; empty: none
  std::string_view body;
};

struct SendResult {
  enum class Kind : std::uint8_t {
    kDelivered,
    kRefused,    // it will not be taken another time either
    kNotNow,     // the target is there and wants it later
    kNoAnswer,   // the target is away, or not well
    kCancelled,  // by abort()
  };
  Kind kind = Kind::kDelivered;
  int status = 0;     // of HTTP; 0: none
  std::string error;  // no secret in it; empty: delivered
  std::optional<std::int64_t> retry_after_s = {};
};

class AlertSender {
 public:
  struct Options {
    bool allow_private_targets = false;
    std::string pagerduty_url;  // the operator's: it may be private
    std::string topic = {};     // of announcements
    std::string ca_file = {};   // empty: the system's
  };
  // `records`: to Kafka; null: there is none. REQUIRES: the clock outlives it.
  AlertSender(Options options, std::unique_ptr<Mailer> mailer, std::unique_ptr<sink::RecordSender> records,
              const Clock& clock);

  SendResult send(const AlertMessage& message);
  // Messages under way and later ones end soon. Any thread.
  void abort() noexcept;

 private:
  SendResult not_sent(const Failure& why) const;
  SendResult post(HttpClient& client, const HttpRequest& request, bool (*is_success)(int status));
  SendResult send_mail(std::string_view body);
  SendResult announce(const AlertMessage& message);

  const Options options_;
  const Clock& clock_;
  const std::unique_ptr<HttpClient> targets_, pagerduty_;
  const std::unique_ptr<Mailer> mailer_;
  const std::unique_ptr<sink::RecordSender> records_;
  std::atomic<bool> aborted_{false};
};

}  // namespace kavach::http
