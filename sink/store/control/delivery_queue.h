// Delivery queue: messages of alerts that wait to be sent, in the store, so that a restart loses none.
//
// A delivery is claimed for a while (a lease): who claims it sends it and says how that went; if it dies, the
// lease ends and another one claims it. So a message arrives at least once, and twice only if its sender died
// between sending and saying so.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/clock.h"
#include "sink/store/control/control_store.h"
#include "sink/store/store.h"

namespace kavach::sink {

struct Delivery {
  std::string id;  // of the table
  std::string org_id;
  std::string channel;        // email, slack, pagerduty, webhook, kafka
  std::string alert_id;       // of the alert event that says how it goes; empty: none
  std::string target_sealed;  // empty: the body says where to
  std::string secret_sealed;  // empty: none
  std::string body;
  std::int64_t attempts = 0;  // that were made, with the one it was claimed for
  WallMicros created_at = 0;
  bool org_is_deleted = false;  // when it was claimed
};

// Due at once; its `id` and `created_at` are made here. REQUIRES: in a transaction.
StoreResult<void> add_delivery(ControlStore& store, const Delivery& delivery);

// Up to `count` that are due, the longest waiting first; each is the caller's until now + `lease_us`.
StoreResult<std::vector<Delivery>> claim_deliveries(ControlStore& store, std::int64_t count,
                                                    std::int64_t lease_us);

struct DeliveryOutcome {
  enum class Kind : std::uint8_t {
    kDelivered,
    kRetry,     // at `next_at`
    kFailed,    // never again
    kGiveBack,  // nothing was tried; at `next_at`
  };
  Kind kind = Kind::kDelivered;
  int status = 0;     // of HTTP; 0: there was no answer
  std::string error;  // shown to the organization
  WallMicros next_at = 0;
};
// Says it of the delivery, and of its alert event whether it was delivered and what was wrong.
StoreResult<void> settle_delivery(ControlStore& store, const Delivery& delivery,
                                  const DeliveryOutcome& outcome);

// How many wait, also those that are being sent.
StoreResult<std::int64_t> pending_deliveries(ControlStore& store);

// Forgets alert events and deliveries of before `before`, and which rules fired in periods that are over. At
// most `rows_max` rows of each; how many went.
StoreResult<std::int64_t> prune_alerts(ControlStore& store, WallMicros before, std::int64_t rows_max);

}  // namespace kavach::sink
