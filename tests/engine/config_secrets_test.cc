// Config and its secrets: a password in a server's URL is used, compared and loaded back, and shown nowhere.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "engine/config.h"

namespace kavach {
namespace {

Result<Config> parsed(std::string_view toml, const std::vector<std::string>& environment = {}) {
  return parse_config(toml, "k.toml", environment);
}

std::string with_url(const std::string& url) {
  return "[redis]\nurl = \"" + url + "\"\n";
}

TEST_CASE("a printed config masks the password, unless it is printed to be loaded back") {
  for (const auto& [url, shown] : std::vector<std::pair<std::string, std::string>>{
           {"redis://kavach:s3cret@host:6380/1", "redis://***@host:6380/1"},
           {"rediss://:s3cret@host", "rediss://***@host"},
           {"unix://:s3cret@/run/redis.sock?db=1", "unix://***@/run/redis.sock?db=1"},
           {"redis://u:s3cret@s3cret/s3cret@host", "redis://***@host"},
           {"redis://host:6379/1", "redis://host:6379/1"},
           {"unix:///run/redis.sock", "unix:///run/redis.sock"}}) {
    CAPTURE(url);
    const auto config = parsed(with_url(url));
    REQUIRE(config.has_value());
    CHECK(config->redis.url == url);
    CHECK(print_config(*config).find("url = \"" + shown + "\"\n") != std::string::npos);
    CHECK(print_config(*config).find("s3cret") == std::string::npos);
    const auto read_back = parsed(print_config(*config, Secrets::kShown));
    REQUIRE(read_back.has_value());
    CHECK(diff_config(*config, *read_back).empty());
  }
}

TEST_CASE("a changed password is a change, and the log does not tell it") {
  const auto from = parsed(with_url("redis://:s3cret@host"));
  const auto to = parsed(with_url("redis://:s3cret2@host"));
  REQUIRE(from.has_value());
  REQUIRE(to.has_value());
  const auto changes = diff_config(*from, *to);
  REQUIRE(changes.size() == 1);
  CHECK(changes[0].key == "redis.url");
  CHECK(changes[0].from == "\"redis://***@host\"");
  CHECK(changes[0].to == changes[0].from);
  // A reload keeps the running one as it is.
  const auto merged = merge_live(*from, *to);
  REQUIRE(merged.has_value());
  CHECK(merged->redis.url == "redis://:s3cret@host");
}

TEST_CASE("a URL without a known scheme is refused, and the message does not hold it") {
  const auto config = parsed(with_url("kavach:s3cret@host"));
  REQUIRE_FALSE(config.has_value());
  CHECK(config.error().message == "k.toml:2:7: redis.url: must begin with redis://, rediss://, unix://");
}

TEST_CASE("the variable that other software uses for the URL counts where Kavach's own is not set") {
  const std::string alias = "AGENTKAVACH_REDIS_URL=redis://alias";
  CHECK(parsed("", {alias})->redis.url == "redis://alias");
  CHECK(parsed(with_url("redis://file"), {alias})->redis.url == "redis://alias");
  CHECK(parsed("", {"KAVACH_REDIS_URL=redis://own", alias})->redis.url == "redis://own");
  CHECK(parsed("", {alias, "KAVACH_REDIS_URL=redis://own"})->redis.url == "redis://own");
  const auto bad = parsed("", {"AGENTKAVACH_REDIS_URL=s3cret"});
  REQUIRE_FALSE(bad.has_value());
  CHECK(bad.error().message ==
        "environment: AGENTKAVACH_REDIS_URL: redis.url: must begin with redis://, rediss://, unix://");
  // Others of that name belong to other software.
  CHECK(parsed("", {"AGENTKAVACH_JWT_SECRET=x"}).has_value());
}

TEST_CASE("the password of the database is masked, and refused where it would not be") {
  const auto with_store = [](const std::string& url) {
    return parsed("[store]\nkind = \"postgres\"\nurl = \"" + url + "\"\n");
  };
  const auto config = with_store("postgres://kavach:s3cret@host:5432/kavach?sslmode=require");
  REQUIRE(config.has_value());
  CHECK(config->store.url == "postgres://kavach:s3cret@host:5432/kavach?sslmode=require");
  CHECK(print_config(*config).find("url = \"postgres://***@host:5432/kavach?sslmode=require\"\n") !=
        std::string::npos);
  CHECK(print_config(*config).find("s3cret") == std::string::npos);
  for (const std::string url : {"postgres://host/kavach?password=s3cret", "host=h password=s3cret"}) {
    const auto refused = with_store(url);
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().message.find("k.toml:3:7: store.url: ") == 0);
    CHECK(refused.error().message.find("s3cret") == std::string::npos);
  }
  const auto missing = parsed("[store]\nkind = \"postgres\"\n");
  REQUIRE_FALSE(missing.has_value());
  CHECK(missing.error().message.find("store.url: is where store.kind") != std::string::npos);
  CHECK(parsed("", {"AGENTKAVACH_DATABASE_URL=postgresql://alias/db"})->store.url == "postgresql://alias/db");
}

TEST_CASE("leases outlive a lost renewal, and their bounds are in order") {
  const auto problem = [](std::string_view toml) {
    const auto config = parsed(toml);
    return config ? std::string() : config.error().message;
  };
  CHECK(problem("[redis]\nrenew_ms = 5000\nlease_ms = 10000\n").empty());
  CHECK(problem("[redis]\nrenew_ms = 5001\n").find("redis.lease_ms: 10000 must be at least 10002") !=
        std::string::npos);
  CHECK(problem("[redis]\nrenew_ms = 100\nreply_timeout_ms = 101\n").find("redis.renew_ms: 100") !=
        std::string::npos);
  CHECK(problem("[redis]\nlease_events_min = 10\nlease_events_max = 9\n").find("redis.lease_events_max: 9") !=
        std::string::npos);
}

TEST_CASE("each limit can be set to shadow while the process runs") {
  const Config running = default_config();
  CHECK(running.quota.daily_mode == "enforce");
  const auto wanted = parsed(
      "[quota]\ndaily_mode = 'shadow'\nburst_mode = 'shadow'\nagents_mode = 'shadow'\nbudget_mode = "
      "'shadow'\n"
      "[ingest]\nrate_limit_headers = true\n");
  REQUIRE(wanted.has_value());
  const auto merged = merge_live(running, *wanted);
  REQUIRE(merged.has_value());
  CHECK(diff_config(*merged, *wanted).empty());
  CHECK(diff_config(running, *merged).size() == 5);
}

TEST_CASE("a secret is loaded back, compared, and shown nowhere") {
  const std::string user = "[kafka]\nsecurity = \"sasl_ssl\"\nsasl_user = \"kavach\"\n";
  const auto config = parsed(user + "sasl_password = \"s3cret\"\n");
  const auto other = parsed(user, {"KAVACH_KAFKA_SASL_PASSWORD=s3cret2"});
  REQUIRE(config.has_value());
  REQUIRE(other.has_value());
  CHECK(config->kafka.sasl_password == "s3cret");
  CHECK(other->kafka.sasl_password == "s3cret2");
  CHECK(print_config(*config).find("s3cret") == std::string::npos);
  CHECK(parsed(print_config(*config, Secrets::kShown))->kafka.sasl_password == "s3cret");
  const auto changes = diff_config(*config, *other);
  REQUIRE(changes.size() == 1);
  CHECK(changes[0].from == "\"***\"");
  CHECK(changes[0].to == "\"***\"");
  const auto missing = parsed(user);
  REQUIRE_FALSE(missing.has_value());
  CHECK(missing.error().message ==
        "k.toml:2:12: kafka.security: needs kafka.sasl_user and kafka.sasl_password");
}

TEST_CASE("the key of the mail API comes from either of the names that other software has for it") {
  const std::string one = "RESEND_API_KEY=s3cret1", two = "AGENTKAVACH_RESEND_API_KEY=two";
  CHECK(parsed("", {one})->mail.resend_api_key == "s3cret1");
  CHECK(parsed("", {two})->mail.resend_api_key == "two");
  CHECK(parsed("", {two, one})->mail.resend_api_key == "two");
  CHECK(parsed("", {"KAVACH_MAIL_RESEND_API_KEY=own", two, one})->mail.resend_api_key == "own");
  CHECK(print_config(*parsed("", {one})).find("s3cret") == std::string::npos);
}

TEST_CASE("mail that is to be sent says where") {
  const auto problem = [](std::string_view toml) {
    const auto config = parsed(toml);
    return config ? std::string() : config.error().message;
  };
  CHECK(problem("[mail]\nkind = 'smtp'\nsmtp_url = 'smtps://host'\n").empty());
  CHECK(problem("[mail]\nkind = 'smtp'\n").find("mail.smtp_url: is where") != std::string::npos);
  CHECK(problem("[mail]\nsmtp_url = 'smtp://u:s3cret@host'\n").find("must not hold a user") !=
        std::string::npos);
  CHECK(problem("[mail]\nsmtp_url = 'smtp://u:s3cret@host'\n").find("s3cret") == std::string::npos);
  CHECK(problem("[mail]\nkind = 'resend'\n").find("mail.resend_api_key: is needed") != std::string::npos);
}

}  // namespace
}  // namespace kavach
