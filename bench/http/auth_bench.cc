// What it costs to know who sent a request: the key's form, its SHA-256, and the key table.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>
#include <vector>

#include "engine/ids.h"
#include "http/auth/api_key.h"
#include "http/auth/key_table.h"

namespace kavach::bench {
namespace {

void BM_Authenticate(benchmark::State& state) {
  const auto keys = static_cast<std::size_t>(state.range(0));
  Random random(1);
  sink::Directory directory;
  std::vector<std::string> headers;
  for (std::size_t i = 0; i < keys; ++i) {
    const http::MintedKey minted = http::mint_key("prod", "bench");
    const Uuid org = make_uuid7(0, random);
    directory.orgs.push_back({org, org, "bench", "pro", "active", false});
    directory.keys.push_back({make_uuid7(0, random), org, org, minted.stored.digest, true});
    headers.push_back("Bearer " + minted.raw);
  }
  const http::KeyTable table(directory, 1);
  const auto find = [&](const std::string& header) -> const http::ApiKey* {
    http::Request request;
    request.authorization = header;
    const auto key = http::key_of(request);
    return key ? table.find(http::digest_of(*key)) : nullptr;
  };
  for (std::size_t i = 0; i < keys; ++i) {
    const http::ApiKey* found = find(headers[i]);
    if (found == nullptr || found->id != directory.keys[i].id) {
      state.SkipWithError("wrong answer: the time means nothing");
      return;
    }
  }
  std::size_t next = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(find(headers[next]));
    next = next + 1 == keys ? 0 : next + 1;
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_Authenticate)->Arg(1)->Arg(10'000);

}  // namespace
}  // namespace kavach::bench
