// ControlHandler: one shard's door to the control API.
//
// On the shard it only finds the row of the table that a request means, looks up its API key where the row
// takes one, and lets go of it; a worker with a
// connection of its own to the store authenticates, checks, runs the row's function, and the shard sends the
// answer. When all workers are busy and the queue is full, the answer is a transient 429.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/shard.h"
#include "engine/worker_pool.h"
#include "http/auth/directory.h"
#include "http/control/client_address.h"
#include "http/control/endpoint.h"
#include "http/control/origins.h"
#include "http/transport/handler.h"
#include "sink/store/control/control_store.h"

namespace kavach::http {

class ControlHandler final : public Handler {
 public:
  // `keys`: the shard's. REQUIRES: all outlive the handler, `workers` is stopped before the shards are.
  ControlHandler(Shard& shard, KeyRing& keys, WorkerPool& workers, sink::ControlStorePool& stores,
                 const Services& services, const Origins& origins, const TrustedProxies& proxies,
                 std::span<const Endpoint* const> endpoints);
  ~ControlHandler() override;

  void handle(Exchange& exchange) override;
  std::optional<Response> refuse_early(const Request& request) override;

 private:
  struct Route {
    const Endpoint* endpoint;
    std::vector<std::string_view> segments;  // "{name}" is a parameter
  };
  struct Job;

  // An answer that needs no worker, with what browsers want to see.
  void answer(Exchange& exchange, Response response) const;
  // Null: `refusal` says why.
  const Endpoint* match(const Request& request, std::vector<std::string>& parameters, Response& refusal);
  void serve(Job& job) const;
  Reply answer_to(Job& job) const;

  Shard& shard_;
  KeyRing& keys_;
  WorkerPool& workers_;
  sink::ControlStorePool& stores_;
  const Services& services_;
  const Origins& origins_;
  const TrustedProxies& proxies_;
  std::vector<Route> routes_;
  std::string allow_;          // methods of the path that was matched last
  std::string allow_header_;   // header line of the last 405
  std::string early_headers_;  // of the last early refusal
};

}  // namespace kavach::http
