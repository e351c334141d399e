// Control: the control API of one node: its workers, its connections to the store, and what its endpoints
// share.
//
// Built with the node, a handler for each shard. Nothing of it runs on a shard but finding the endpoint.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/config.h"
#include "engine/result.h"
#include "engine/shard.h"
#include "engine/worker_pool.h"
#include "http/control/control_handler.h"
#include "http/control/docs.h"
#include "http/control/endpoint.h"
#include "http/outbound/mailer.h"
#include "http/outbound/secret_box.h"
#include "http/router.h"

namespace kavach::http {

class Control {
 public:
  // `directory_changed`: see Services.
  static Result<std::unique_ptr<Control>> create(const Config& config, quota::TierTable tiers,
                                                 PriceList prices, std::function<void()> directory_changed);
  ~Control();  // stop()

  // The shard's handler, for every path that the router does not know. REQUIRES: before the shards start.
  void add_shard(Shard& shard, KeyRing& keys, Router& router);
  // Any thread: they were read again.
  void set_tiers(quota::TierTable tiers) { tiers_.set(std::move(tiers)); }
  void set_prices(PriceList prices) { prices_.set(std::move(prices)); }
  // Finishes what is under way. REQUIRES: the shards still run. Idempotent.
  void stop();

 private:
  // What can be wrong with a config, read.
  struct Parts {
    std::string root_secret;
    std::unique_ptr<Mailer> mailer;
    Origins origins;
    TrustedProxies proxies;
    quota::TierTable tiers;
    PriceList prices;
  };
  Control(const Config& config, Parts parts, std::function<void()> directory_changed);
  void send_code(std::string_view to, sink::CodePurpose purpose, std::string_view code);

  const Config config_;  // its own: a reload replaces the node's, and workers read it all the time
  const TokenSigner tokens_;
  const SecretBox secrets_;
  const Origins origins_;
  const TrustedProxies proxies_;
  PasswordHasher passwords_;
  const std::unique_ptr<Mailer> mailer_;
  Current<quota::TierTable> tiers_;
  Current<PriceList> prices_;
  Stripe stripe_;
  sink::ControlStorePool stores_;
  const Services services_;
  const std::vector<const Endpoint*> endpoints_;
  WorkerPool workers_;
  WorkerPool mail_workers_;
  std::vector<std::unique_ptr<ControlHandler>> handlers_;
  FixedHandler openapi_, docs_;  // of all shards: nothing in them changes
};

}  // namespace kavach::http
