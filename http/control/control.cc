#include "http/control/control.h"

#include <fmt/format.h>

#include <utility>

#include "engine/log.h"
#include "http/backends.h"

namespace kavach::http {

Result<std::unique_ptr<Control>> Control::create(const Config& config, quota::TierTable tiers,
                                                 PriceList prices, std::function<void()> directory_changed) {
  auto secret = secret_key(config);
  if (!secret) return secret.error();
  auto mailer = make_mailer(mailer_options(config));
  if (!mailer) return mailer.error();
  auto origins = Origins::parse(config.control.cors_origins);
  if (!origins) return origins.error();
  auto proxies = TrustedProxies::parse(config.control.trusted_proxies);
  if (!proxies) return proxies.error();
  return std::unique_ptr<Control>(new Control(config,
                                              {.root_secret = std::move(*secret),
                                               .mailer = std::move(*mailer),
                                               .origins = std::move(*origins),
                                               .proxies = std::move(*proxies),
                                               .tiers = std::move(tiers),
                                               .prices = std::move(prices)},
                                              std::move(directory_changed)));
}

Control::Control(const Config& config, Parts parts, std::function<void()> directory_changed)
    : config_(config),
      tokens_(config.control.jwt_secret.empty() ? digest_hex("tokens of " + parts.root_secret)
                                                : config.control.jwt_secret),
      secrets_(parts.root_secret),
      origins_(std::move(parts.origins)),
      proxies_(std::move(parts.proxies)),
      passwords_(static_cast<std::ptrdiff_t>(config.control.password_hashes_max)),
      mailer_(std::move(parts.mailer)),
      tiers_(std::move(parts.tiers)),
      prices_(std::move(parts.prices)),
      stripe_({.url = config.billing.stripe_url, .api_key = config.billing.stripe_api_key}),
      stores_([this] { return connect_control(config_); }),
      services_{.config = config_,
                .clock = system_clock(),
                .tokens = tokens_,
                .passwords = passwords_,
                .secrets = secrets_,
                .stripe = stripe_,
                .tiers = tiers_,
                .prices = prices_,
                .directory_changed = std::move(directory_changed),
                .send_code = [this](std::string_view to, sink::CodePurpose purpose,
                                    std::string_view code) { send_code(to, purpose, code); }},
      endpoints_(all_endpoints()),
      workers_({.name = "control",
                .threads = static_cast<std::uint32_t>(config.control.workers),
                .nice = static_cast<int>(config.control.nice)}),
      mail_workers_({.name = "mail", .threads = 1}),
      openapi_(openapi(endpoints_), "application/json"),
      docs_(docs_page(endpoints_), "text/html; charset=utf-8") {}

Control::~Control() {
  stop();
}

void Control::add_shard(Shard& shard, KeyRing& keys, Router& router) {
  handlers_.push_back(std::make_unique<ControlHandler>(shard, keys, workers_, stores_, services_, origins_,
                                                       proxies_, endpoints_));
  router.set_fallback(*handlers_.back());
  router.add(Method::kGet, "/openapi.json", openapi_);
  router.add(Method::kGet, "/docs", docs_);
}

void Control::stop() {
  mailer_->abort();
  stripe_.abort();
  workers_.stop();
  mail_workers_.stop();
}

// A code is worth nothing after some minutes, so it is tried once: who got none asks for another.
void Control::send_code(std::string_view to, sink::CodePurpose purpose, std::string_view code) {
  const bool is_reset = purpose == sink::CodePurpose::kReset;
  Mail mail{.id = random_token(),
            .to = {std::string(to)},
            .subject = is_reset ? "Your password reset code" : "Your verification code",
            .text = fmt::format("{} is your {} code. It is valid for 10 minutes.\n\n"
                                "If you did not ask for it, somebody has typed your address by mistake.\n",
                                code, is_reset ? "password reset" : "verification"),
            .html = {}};
  const bool queued = mail_workers_.try_post([this, mail = std::move(mail)] {
    if (const Status sent = mailer_->send(mail); !sent)
      log::error("control: a mail with a code could not be sent: {}", sent.error().message);
  });
  if (!queued) log::error("control: too many mails wait to be sent");
}

}  // namespace kavach::http
