// Mailer: sends one mail now, by SMTP, through an HTTP API, or into a folder.
//
// Blocks for up to its timeout. `retryable` is true for what may pass (a server that is away, a 4xx of SMTP,
// 429 and 5xx of HTTP, a password that is refused: an operator can mend that); what is said finally of a
// recipient is not. A failure holds no credential and no address. Any thread, several at a time; never a
// shard's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "engine/clock.h"
#include "engine/result.h"
#include "http/outbound/mime.h"

namespace kavach::http {

class Mailer {
 public:
  virtual ~Mailer() = default;
  virtual Status send(const Mail& mail) = 0;
  // Mails under way and later ones fail soon (retryable). Any thread.
  virtual void abort() noexcept = 0;
};

struct MailerOptions {
  enum class Kind : std::uint8_t { kNone, kOutbox, kSmtp, kResend };
  Kind kind = Kind::kNone;  // kNone: each mail fails, retryable
  std::string from = "kavach@localhost";
  std::string outbox_directory = {};  // made when missing
  std::string smtp_url = {};          // smtp://host[:port] or smtps://host[:port]
  bool smtp_starttls = true;          // of smtp://: nothing is sent before TLS
  std::string smtp_user = {};         // empty: no log-in
  std::string smtp_password = {};
  std::string ca_file = {};     // empty: the system's
  std::string resend_url = {};  // what stands before /emails
  std::string resend_api_key = {};
  std::int64_t timeout_ms = 15'000;
};

// Fails when `from` is no address. REQUIRES: the clock outlives the mailer.
Result<std::unique_ptr<Mailer>> make_mailer(const MailerOptions& options,
                                            const Clock& clock = system_clock());

// The body of POST /emails; without `from` it is how the queue keeps a mail.
std::string mail_json(const Mail& mail, std::string_view from = {});
Result<Mail> parse_mail_json(std::string_view json);

}  // namespace kavach::http
