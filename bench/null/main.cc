// kavach-null: Kavach's shard and transport with nothing behind them. Every complete request is answered at
// once with the bytes that kavachd would answer, so that the difference between the two is what Kavach itself
// costs. One shard; stops on SIGTERM.
#include <fmt/format.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <iostream>
#include <optional>
#include <string>
#include <utility>

#include "engine/shard.h"
#include "http/transport/server.h"

namespace kavach::bench {
namespace {

class NullHandler final : public http::Handler {
 public:
  explicit NullHandler(std::uint32_t events)
      : body_(fmt::format(R"({{"accepted":{},"rejected":0,"mode":"direct","rejected_agents":[]}})", events)) {
  }

  void handle(http::Exchange& exchange) override {
    exchange.answer({.status = 202, .body = body_, .headers = "Kavach-Receipt: journal\r\n"});
  }
  std::optional<http::Response> refuse_early(const http::Request&) override { return std::nullopt; }

 private:
  const std::string body_;
};

int run(int argc, char** argv) {
  CLI::App app{"kavach-null: answers every request 202 at once; the transport's own cost"};
  std::string address = "127.0.0.1";
  std::uint16_t port = 8000;
  std::uint32_t events = 1;
  app.add_option("--address", address, "Where to listen")->capture_default_str();
  app.add_option("--port", port, "Where to listen")->capture_default_str();
  app.add_option("--events", events, "Events that the answer says were accepted")->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }

  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT}) sigaddset(&signals, signal);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  Runtime runtime({.shards = 1});
  NullHandler handler(events);
  std::atomic<std::int64_t> connections{0};
  http::ServerOptions options;
  options.address = address;
  options.port = port;
  http::Server server(runtime.shard(0), handler, std::move(options), connections);
  if (const Status listening = server.listen(); !listening) {
    std::cerr << "kavach-null: " << listening.error().message << '\n';
    return 1;
  }
  runtime.start();
  runtime.shard(0).post([&server] { server.start(); });
  int signal = 0;
  ::sigwait(&signals, &signal);
  runtime.stop();
  return 0;
}

}  // namespace
}  // namespace kavach::bench

int main(int argc, char** argv) {
  try {
    return kavach::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "kavach-null: " << error.what() << '\n';
    return 1;
  }
}
