// Config: every setting of Kavach as one typed struct, read from a TOML file and the environment.
//
// The table behind it (engine/settings.cc) declares each setting once: key, default, range, unit, reload rule
// and a sentence for operators. Loading, `kavachd check`, the environment names and configs/README.md all
// come from that table. A key `http.port` is overridden by the environment variable KAVACH_HTTP_PORT. Modules
// take their own Options, never this struct; main.cc translates. Any thread: these are values and pure
// functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/result.h"

namespace kavach {

struct Config {
  struct Node {
    std::string environment;  // prod, dev or local: the middle of the API keys minted here
  } node;
  struct Engine {
    std::int64_t shards;   // 0: one per core
    bool pin;              // pin shard i to core i
    std::int64_t spin_us;  // poll this long before sleeping
    std::int64_t turn_handlers_max;
    std::int64_t turn_warn_ms;
    std::int64_t workers;
  } engine;
  struct Http {
    std::string address;
    std::int64_t port;
    std::int64_t listen_backlog;
    std::int64_t connections_max;  // of the whole process
    std::int64_t header_bytes_max;
    std::int64_t body_bytes_max;  // after decompression
    std::int64_t header_timeout_ms;
    std::int64_t body_timeout_ms;
    std::int64_t write_timeout_ms;
    std::int64_t idle_timeout_ms;
    std::int64_t drain_delay_ms;  // readiness is off this long before the listeners close
    std::int64_t drain_timeout_ms;
    std::string tls_certificate_file;
    std::string tls_key_file;
  } http;
  struct Auth {
    std::int64_t poll_ms;  // how often the key table is compared with the store
  } auth;
  struct Ingest {
    std::int64_t batch_events_max;
    bool rate_limit_headers;
  } ingest;
  struct Quota {
    std::string tiers_file;
    std::int64_t dedup_window_hours;
    std::int64_t dedup_keys_max;       // of the whole process
    std::int64_t dedup_keys_expected;  // of the whole process
    std::string daily_mode;            // each enforce or shadow
    std::string burst_mode;
    std::string agents_mode;
    std::string budget_mode;
  } quota;
  struct Redis {
    std::string url;  // may hold a password; empty: no Redis
    std::string prefix;
    std::string ca_file;
    std::int64_t reply_timeout_ms;
    std::int64_t renew_ms;
    std::int64_t lease_ms;
    std::int64_t burst_lease_ms;
    std::int64_t lease_events_min;
    std::int64_t lease_events_max;
    std::int64_t idle_ms;
    std::int64_t learn_ms;
  } redis;
  struct Journal {
    std::string directory;
    std::int64_t segment_bytes;
    std::int64_t backlog_bytes_max;    // durable, not yet carried on by every follower
    std::int64_t in_flight_bytes_max;  // handed over, not yet durable
    std::int64_t group_bytes_max;      // written and synced together
    std::string on_corruption;         // stop or skip
  } journal;
  struct Store {
    std::string kind;  // sqlite, postgres or none
    std::string path;
    std::string url;                // Postgres; may hold a password
    std::int64_t retention_days;    // of events in Postgres; 0: for ever
    std::int64_t reply_timeout_ms;  // of Postgres
    std::int64_t batch_events_max;  // events of one transaction of the shipper
    std::int64_t batch_delay_ms;    // how long the shipper gathers before it writes
  } store;
  struct Kafka {
    std::string brokers;  // empty: no Kafka
    std::string topic;
    std::string dlq_topic;
    std::string alerts_topic;
    std::int64_t partitions;
    std::int64_t replication;  // 0: the broker's default
    std::int64_t retention_hours;
    std::string compression;
    std::int64_t linger_ms;
    std::int64_t in_flight_bytes_max;
    std::int64_t record_events_max;
    std::int64_t record_bytes_max;
    std::string receipt;            // broker or journal: what a 202 waits for
    std::string receipt_when_away;  // journal or refuse
    std::int64_t receipt_timeout_ms;
    std::string security;
    std::string sasl_mechanism;
    std::string sasl_user;
    std::string sasl_password;
    std::string ca_file;
  } kafka;
  struct Writer {
    bool enabled;  // inside serve too
    std::string group;
    std::int64_t session_timeout_ms;
    std::int64_t batch_events_max;  // events of one transaction
    std::int64_t batch_delay_ms;    // how long the writer gathers before it stores
    std::int64_t port;              // of `kavachd writer`
  } writer;
  struct Control {
    std::int64_t workers;
    std::int64_t nice;
    std::int64_t password_hashes_max;
    std::int64_t tries_max;
    std::string jwt_secret;
    std::string secret_key;       // empty: a file holds it
    std::string cors_origins;     // with commas
    std::string trusted_proxies;  // with commas
  } control;
  struct Billing {
    std::string stripe_api_key;  // empty: no Stripe
    std::string stripe_webhook_secret;
    std::string stripe_url;
    std::string price_pro;
    std::string price_max;
    std::string success_url;
    std::string cancel_url;
    std::string return_url;
  } billing;
  struct Pricing {
    std::string file;
  } pricing;
  struct Alerts {
    bool allow_private_targets;
    std::string pagerduty_url;
    std::string dashboard_url;
    std::string slack_webhook_url;      // of rules without a target; empty: none
    std::string pagerduty_routing_key;  // likewise
    std::string email;                  // likewise
    bool kill_on_server;
    std::int64_t workers;
    std::int64_t retry_ms;
    std::int64_t retry_hours;
  } alerts;
  struct Mail {
    std::string kind;  // none, outbox, smtp or resend
    std::string from;
    std::string outbox_directory;
    std::string smtp_url;
    std::string smtp_security;  // starttls or none
    std::string smtp_user;
    std::string smtp_password;
    std::string ca_file;
    std::string resend_url;
    std::string resend_api_key;
  } mail;
  struct Log {
    std::string level;
    std::string format;  // text or json
  } log;
};

// What a running process does with a changed value on SIGHUP.
enum class Reload : std::uint8_t { kLive, kRestart };

// One row of the table, for help, docs and `kavachd check --settings`.
struct SettingInfo {
  std::string key;   // "http.port"
  std::string type;  // "integer", "string", "boolean", or the choices: "stop|skip"
  std::string default_text;
  std::string range_text;  // "1..65535", empty when there is none
  std::string unit;        // "bytes", "ms", "events", ... or empty
  Reload reload;
  std::string help;
  std::string env_name;  // "KAVACH_HTTP_PORT"
};
std::vector<SettingInfo> setting_table();

// The same as the Markdown table of configs/README.md; ends with a newline.
std::string settings_markdown();

// A change that a reload found, for the log: secrets are masked.
struct SettingChange {
  std::string key;
  std::string from;
  std::string to;
  Reload reload;
};

// All defaults; always valid.
Config default_config();

// Reads `path` (empty: defaults only), then the environment given as `NAME=value` strings (environ's form).
// Some settings also have a name that other software gave them (AGENTKAVACH_REDIS_URL), which KAVACH_'s own
// overrides. Every problem is reported at once, one per line: `configs/dev.toml:12:8: http.port: 70000 is out
// of range 0..65535`; an unknown key names the nearest known one; an unknown KAVACH_ variable is an error too
// (only KAVACH_TEST_... is left to the test suite). Relations between settings are checked last, on the
// whole. Relative paths of files stay as they are (relative to the working directory).
Result<Config> load_config(const std::string& path, const std::vector<std::string>& environment);

// The same from TOML text; `name` stands in for the file's name. For tests and the fuzzer.
Result<Config> parse_config(std::string_view toml, std::string_view name,
                            const std::vector<std::string>& environment);

// What a running process should do after SIGHUP: the live settings of `wanted`, everything else as in
// `running`. Fails when the two do not go together (a larger body than the running journal's segments hold).
Result<Config> merge_live(const Config& running, const Config& wanted);

// The settings in which two configs differ, in table order.
std::vector<SettingChange> diff_config(const Config& from, const Config& to);

// Whether text is for people, or must load back to the same config.
enum class Secrets : std::uint8_t { kMasked, kShown };

// The whole config as TOML with each setting's help as a comment; with its secrets it loads back to the same
// config.
std::string print_config(const Config& config, Secrets secrets = Secrets::kMasked);

}  // namespace kavach
