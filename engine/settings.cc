#include "engine/settings.h"

#include <array>
#include <limits>
#include <vector>

#include "engine/bounds.h"

namespace kavach {
namespace {

using Rule = TextSetting::Rule;

constexpr std::int64_t kKiB = 1 << 10;
constexpr std::int64_t kMiB = 1 << 20;
constexpr std::int64_t kGiB = 1 << 30;
constexpr std::int64_t kTiB = kGiB * kKiB;
// Timeouts end at an hour, so that no sum of a few of them can overflow a timer.
constexpr std::int64_t kHourMs = 3'600'000;

template <auto Table, auto Member, typename T>
T& member_of(Config& config) {
  return (config.*Table).*Member;
}

template <auto Table, auto Member>
IntegerSetting integer(std::int64_t initial, std::int64_t min, std::int64_t max) {
  return {{&member_of<Table, Member, std::int64_t>}, initial, min, max};
}

template <auto Table, auto Member>
BooleanSetting boolean(bool initial) {
  return {{&member_of<Table, Member, bool>}, initial};
}

template <auto Table, auto Member>
TextSetting text(std::string_view initial, Rule rule) {
  return {{&member_of<Table, Member, std::string>}, initial, rule};
}

template <auto Table, auto Member>
ChoiceSetting choice(std::span<const std::string_view> choices, std::string_view initial) {
  return {{&member_of<Table, Member, std::string>}, initial, choices};
}

constexpr std::array<std::string_view, 3> kEnvironments{"prod", "dev", "local"};
constexpr std::array<std::string_view, 2> kOnCorruption{"stop", "skip"};
constexpr std::array<std::string_view, 2> kLimitModes{"enforce", "shadow"};
constexpr std::array<std::string_view, 3> kStoreKinds{"sqlite", "postgres", "none"};
constexpr std::array<std::string_view, 3> kCompressions{"none", "lz4", "zstd"};
constexpr std::array<std::string_view, 4> kSecurities{"plaintext", "ssl", "sasl_plaintext", "sasl_ssl"};
constexpr std::array<std::string_view, 3> kSaslMechanisms{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"};
constexpr std::array<std::string_view, 2> kReceipts{"broker", "journal"};
constexpr std::array<std::string_view, 2> kReceiptsWhenAway{"journal", "refuse"};
constexpr std::array<std::string_view, 4> kMailKinds{"none", "outbox", "smtp", "resend"};
constexpr std::array<std::string_view, 2> kSmtpSecurities{"starttls", "none"};
constexpr std::array<std::string_view, 5> kLogLevels{"debug", "info", "warning", "error", "off"};
constexpr std::array<std::string_view, 2> kLogFormats{"text", "json"};

// A function for each TOML table keeps the rows short.
void add_node(std::vector<Setting>& rows) {
  using Node = Config::Node;
  constexpr auto kTable = &Config::node;
  rows.push_back(
      {"node.environment", choice<kTable, &Node::environment>(kEnvironments, "local"), "", Reload::kRestart,
       "The middle of the API keys minted here (ak_local_...). Keys of every environment are accepted."});
}

void add_engine(std::vector<Setting>& rows) {
  using Engine = Config::Engine;
  constexpr auto kTable = &Config::engine;
  rows.push_back({"engine.shards", integer<kTable, &Engine::shards>(0, 0, bounds::kShardsMax), "threads",
                  Reload::kRestart, "Shards, each one thread with its own connections. 0: one per core."});
  rows.push_back({"engine.pin", boolean<kTable, &Engine::pin>(true), "", Reload::kRestart,
                  "Pin shard i to the i-th core that the process may use."});
  rows.push_back(
      {"engine.spin_us", integer<kTable, &Engine::spin_us>(0, 0, 1'000'000), "us", Reload::kRestart,
       "An idle shard polls this long before it sleeps: saves about 12 us a wake-up, costs a core."});
  rows.push_back({"engine.turn_handlers_max", integer<kTable, &Engine::turn_handlers_max>(256, 1, 1'000'000),
                  "handlers", Reload::kRestart,
                  "Ready handlers that a shard runs before it looks at its mailboxes again."});
  rows.push_back({"engine.turn_warn_ms", integer<kTable, &Engine::turn_warn_ms>(100, 1, kHourMs), "ms",
                  Reload::kRestart, "A turn of a shard's loop that takes longer is counted and logged."});
  rows.push_back({"engine.workers", integer<kTable, &Engine::workers>(2, 1, 64), "threads", Reload::kRestart,
                  "Threads for work that blocks, such as SQL of the control path."});
}

void add_http(std::vector<Setting>& rows) {
  using Http = Config::Http;
  constexpr auto kTable = &Config::http;
  rows.push_back({"http.address", text<kTable, &Http::address>("127.0.0.1", Rule::kIpAddress), "",
                  Reload::kRestart, "IPv4 or IPv6 address to listen on; 0.0.0.0 or :: for every interface."});
  rows.push_back({"http.port", integer<kTable, &Http::port>(8000, 0, 65'535), "", Reload::kRestart,
                  "TCP port to listen on. 0: any free one, which the log then names."});
  rows.push_back({"http.listen_backlog", integer<kTable, &Http::listen_backlog>(1024, 1, 65'535),
                  "connections", Reload::kRestart,
                  "Connections that the kernel holds for each shard until it accepts them."});
  rows.push_back({"http.connections_max", integer<kTable, &Http::connections_max>(50'000, 1, 1'000'000),
                  "connections", Reload::kLive,
                  "Open connections of the whole process; more are closed at once."});
  rows.push_back({"http.header_bytes_max",
                  integer<kTable, &Http::header_bytes_max>(16 * kKiB, kKiB, bounds::kHeaderBytesMax), "bytes",
                  Reload::kLive, "Longest request line and header fields together (431)."});
  rows.push_back({"http.body_bytes_max",
                  integer<kTable, &Http::body_bytes_max>(10 * kMiB, kKiB, bounds::kBodyBytesMax), "bytes",
                  Reload::kLive, "Longest request body, before and after decompression (413)."});
  rows.push_back({"http.header_timeout_ms", integer<kTable, &Http::header_timeout_ms>(10'000, 1, kHourMs),
                  "ms", Reload::kLive, "From a request's first byte to the end of its header."});
  rows.push_back({"http.body_timeout_ms", integer<kTable, &Http::body_timeout_ms>(30'000, 1, kHourMs), "ms",
                  Reload::kLive, "From the end of a request's header to the end of its body."});
  rows.push_back({"http.write_timeout_ms", integer<kTable, &Http::write_timeout_ms>(30'000, 1, kHourMs), "ms",
                  Reload::kLive, "For a peer to take an answer."});
  rows.push_back({"http.idle_timeout_ms", integer<kTable, &Http::idle_timeout_ms>(75'000, 1, kHourMs), "ms",
                  Reload::kLive, "A connection without a request is closed after this long."});
  rows.push_back({"http.drain_delay_ms", integer<kTable, &Http::drain_delay_ms>(0, 0, kHourMs), "ms",
                  Reload::kLive,
                  "On SIGTERM, how long /readyz already answers 503 while new connections are still taken."});
  rows.push_back({"http.drain_timeout_ms", integer<kTable, &Http::drain_timeout_ms>(10'000, 0, kHourMs), "ms",
                  Reload::kLive,
                  "On SIGTERM, how long requests under way may take before they are cut off."});
  rows.push_back({"http.tls_certificate_file", text<kTable, &Http::tls_certificate_file>("", Rule::kAny), "",
                  Reload::kLive,
                  "PEM file with the certificate chain. Empty: plain HTTP. Read again on SIGHUP."});
  rows.push_back({"http.tls_key_file", text<kTable, &Http::tls_key_file>("", Rule::kAny), "", Reload::kLive,
                  "PEM file with the certificate's private key. Read again on SIGHUP."});
}

void add_ingest(std::vector<Setting>& rows) {
  using Auth = Config::Auth;
  using Ingest = Config::Ingest;
  rows.push_back({"auth.poll_ms", integer<&Config::auth, &Auth::poll_ms>(250, 10, 1'000), "ms",
                  Reload::kRestart,
                  "How often changes that other processes made (keys, tiers, limits, budgets, killed agents) "
                  "are looked for. "
                  "Those that are announced through redis.url are seen at once."});
  rows.push_back({"ingest.batch_events_max",
                  integer<&Config::ingest, &Ingest::batch_events_max>(1'000, 1, bounds::kBatchEventsMax),
                  "events", Reload::kLive, "Most events in one request (422)."});
  rows.push_back(
      {"ingest.rate_limit_headers", boolean<&Config::ingest, &Ingest::rate_limit_headers>(false), "",
       Reload::kLive,
       "Answer with RateLimit and RateLimit-Policy: what is left of the day's events and of the burst."});
}

void add_quota(std::vector<Setting>& rows) {
  using Quota = Config::Quota;
  constexpr auto kTable = &Config::quota;
  rows.push_back(
      {"quota.tiers_file", text<kTable, &Quota::tiers_file>("", Rule::kAny), "", Reload::kLive,
       "TOML file with the tiers (configs/tiers.toml). Empty: the same tiers, built in. Read again on "
       "SIGHUP."});
  rows.push_back({"quota.dedup_window_hours", integer<kTable, &Quota::dedup_window_hours>(168, 1, 1'000),
                  "hours", Reload::kRestart, "An idempotency key is remembered this long."});
  rows.push_back(
      {"quota.dedup_keys_max", integer<kTable, &Quota::dedup_keys_max>(10'000'000, 1, 1'000'000'000), "keys",
       Reload::kRestart, "Idempotency keys remembered by the whole process, at most 44 bytes each."});
  rows.push_back({"quota.dedup_keys_expected",
                  integer<kTable, &Quota::dedup_keys_expected>(0, 0, 1'000'000'000), "keys", Reload::kRestart,
                  "Room for so many is taken at the start, 22 bytes each, instead of while batches wait."});
  rows.push_back({"quota.daily_mode", choice<kTable, &Quota::daily_mode>(kLimitModes, "enforce"), "",
                  Reload::kLive, "The day's events. shadow: evaluated and counted, but nothing is refused."});
  rows.push_back({"quota.burst_mode", choice<kTable, &Quota::burst_mode>(kLimitModes, "enforce"), "",
                  Reload::kLive, "Events per 60 s. shadow: as in quota.daily_mode."});
  rows.push_back({"quota.agents_mode", choice<kTable, &Quota::agents_mode>(kLimitModes, "enforce"), "",
                  Reload::kLive, "Agents active in 24 h. shadow: as in quota.daily_mode."});
  rows.push_back({"quota.budget_mode", choice<kTable, &Quota::budget_mode>(kLimitModes, "enforce"), "",
                  Reload::kLive, "Budgets of organizations. shadow: as in quota.daily_mode."});
}

void add_redis(std::vector<Setting>& rows) {
  using Redis = Config::Redis;
  constexpr auto kTable = &Config::redis;
  rows.push_back(
      {"redis.url",
       text<kTable, &Redis::url>("", Rule::kRedisUrl),
       "",
       Reload::kRestart,
       "Where the nodes of a fleet share their limits: redis://[user:password@]host[:port][/db], rediss:// "
       "for TLS, or unix:///path[?db=n]. Empty: this node is on its own. Also AGENTKAVACH_REDIS_URL.",
       {"AGENTKAVACH_REDIS_URL"}});
  rows.push_back({"redis.prefix", text<kTable, &Redis::prefix>("kavach:", Rule::kAny), "", Reload::kRestart,
                  "What every key in Redis begins with; the same on all nodes of a fleet."});
  rows.push_back({"redis.ca_file", text<kTable, &Redis::ca_file>("", Rule::kAny), "", Reload::kRestart,
                  "PEM file with the certificates that vouch for a rediss:// server. Empty: the system's."});
  rows.push_back(
      {"redis.reply_timeout_ms", integer<kTable, &Redis::reply_timeout_ms>(50, 1, 5'000), "ms",
       Reload::kRestart,
       "No batch waits longer for Redis. Then the node lives on what it holds until Redis answers."});
  rows.push_back({"redis.renew_ms", integer<kTable, &Redis::renew_ms>(1'000, 100, 60'000), "ms",
                  Reload::kRestart,
                  "How often the leases of organizations in use are renewed in the background."});
  rows.push_back({"redis.lease_ms", integer<kTable, &Redis::lease_ms>(10'000, 1'000, 600'000), "ms",
                  Reload::kRestart,
                  "After this long without renewal nobody waits for what a node holds to be given back."});
  rows.push_back(
      {"redis.burst_lease_ms", integer<kTable, &Redis::burst_lease_ms>(1'000, 100, 10'000), "ms",
       Reload::kRestart,
       "How long burst units may be used after they were leased; the 60 s window is longer by that much. The "
       "same on all nodes of a fleet."});
  rows.push_back({"redis.lease_events_min", integer<kTable, &Redis::lease_events_min>(16, 1, 1'000'000),
                  "events", Reload::kRestart, "The least that is leased ahead for an organization in use."});
  rows.push_back({"redis.lease_events_max",
                  integer<kTable, &Redis::lease_events_max>(100'000, 1, 1'000'000'000), "events",
                  Reload::kRestart, "The most that is leased ahead for one organization."});
  rows.push_back({"redis.idle_ms", integer<kTable, &Redis::idle_ms>(5'000, 100, kHourMs), "ms",
                  Reload::kRestart, "An organization that is not used for this long gives everything back."});
  rows.push_back(
      {"redis.learn_ms", integer<kTable, &Redis::learn_ms>(3'000, 2'500, 600'000), "ms", Reload::kRestart,
       "After Redis was restarted or has lost its data, nothing new is leased for this long, until every "
       "node has said what it holds. More than it takes the nodes to connect again, which is 1 s."});
}

void add_sink(std::vector<Setting>& rows) {
  using Journal = Config::Journal;
  using Store = Config::Store;
  constexpr auto kJournal = &Config::journal;
  constexpr auto kStore = &Config::store;
  rows.push_back({"journal.directory", text<kJournal, &Journal::directory>("var/journal", Rule::kNotEmpty),
                  "", Reload::kRestart, "Where the journal's segments live; made when missing."});
  rows.push_back({"journal.segment_bytes",
                  integer<kJournal, &Journal::segment_bytes>(64 * kMiB, 8 * kKiB, kGiB), "bytes",
                  Reload::kRestart, "Size of one segment file; the largest body must fit into one."});
  rows.push_back(
      {"journal.backlog_bytes_max",
       integer<kJournal, &Journal::backlog_bytes_max>(4 * kGiB, 16 * kKiB, 64 * kTiB), "bytes",
       Reload::kRestart,
       "Durable bytes that the store may lag behind before batches are refused (429 backpressure)."});
  rows.push_back({"journal.in_flight_bytes_max",
                  integer<kJournal, &Journal::in_flight_bytes_max>(64 * kMiB, kKiB, 16 * kGiB), "bytes",
                  Reload::kRestart,
                  "Bytes handed to the journal and not yet durable before batches are refused."});
  rows.push_back({"journal.group_bytes_max",
                  integer<kJournal, &Journal::group_bytes_max>(8 * kMiB, 4 * kKiB, kGiB), "bytes",
                  Reload::kRestart, "Bytes that are written and synced together."});
  rows.push_back(
      {"journal.on_corruption", choice<kJournal, &Journal::on_corruption>(kOnCorruption, "stop"), "",
       Reload::kRestart,
       "What to do about damage in the middle of the journal: refuse to start, or skip the damaged frames."});
  rows.push_back(
      {"store.kind", choice<kStore, &Store::kind>(kStoreKinds, "sqlite"), "", Reload::kRestart,
       "What follows the journal, and holds orgs and keys. none: SQLite for these, and nothing that "
       "follows: for benchmarks of the front."});
  rows.push_back({"store.path", text<kStore, &Store::path>("var/kavach.db", Rule::kNotEmpty), "",
                  Reload::kRestart, "The SQLite database with orgs, keys and events."});
  rows.push_back({"store.url",
                  text<kStore, &Store::url>("", Rule::kPostgresUrl),
                  "",
                  Reload::kRestart,
                  "The Postgres database with the same: postgres://user:password@host[:port]/database"
                  "[?sslmode=verify-full&...]. Also AGENTKAVACH_DATABASE_URL.",
                  {"AGENTKAVACH_DATABASE_URL"}});
  rows.push_back(
      {"store.retention_days", integer<kStore, &Store::retention_days>(0, 0, 36'500), "days",
       Reload::kRestart,
       "Events of days that ended before so many days are dropped from Postgres. 0: kept for ever."});
  rows.push_back({"store.reply_timeout_ms", integer<kStore, &Store::reply_timeout_ms>(10'000, 100, kHourMs),
                  "ms", Reload::kRestart,
                  "A Postgres that says nothing for so long is given up, and connected to anew."});
  rows.push_back({"store.batch_events_max", integer<kStore, &Store::batch_events_max>(10'000, 1, 1'000'000),
                  "events", Reload::kRestart, "Most events stored in one transaction."});
  rows.push_back({"store.batch_delay_ms", integer<kStore, &Store::batch_delay_ms>(100, 0, 60'000), "ms",
                  Reload::kRestart, "How long events are gathered before they are stored."});
}

void add_kafka(std::vector<Setting>& rows) {
  using Kafka = Config::Kafka;
  constexpr auto kTable = &Config::kafka;
  rows.push_back(
      {"kafka.brokers",
       text<kTable, &Kafka::brokers>("", Rule::kAny),
       "",
       Reload::kRestart,
       "host:port, more after commas. Set: events go from the journal to Kafka instead of into the "
       "store. Also AGENTKAVACH_KAFKA_BOOTSTRAP_SERVERS.",
       {"AGENTKAVACH_KAFKA_BOOTSTRAP_SERVERS"}});
  rows.push_back({"kafka.topic", text<kTable, &Kafka::topic>("agentkavach.events", Rule::kNotEmpty), "",
                  Reload::kRestart, "Events, keyed by organization."});
  rows.push_back({"kafka.dlq_topic",
                  text<kTable, &Kafka::dlq_topic>("agentkavach.events.dlq", Rule::kNotEmpty), "",
                  Reload::kRestart, "What the writer cannot store, with the reason."});
  rows.push_back({"kafka.alerts_topic",
                  text<kTable, &Kafka::alerts_topic>("agentkavach.alerts", Rule::kNotEmpty), "",
                  Reload::kRestart, "A summary of every alert, where events go through Kafka."});
  rows.push_back({"kafka.partitions", integer<kTable, &Kafka::partitions>(16, 1, 10'000), "partitions",
                  Reload::kRestart, "Of the events' topic when `kavachd topics create` makes it."});
  rows.push_back({"kafka.replication", integer<kTable, &Kafka::replication>(0, 0, 100), "copies",
                  Reload::kRestart, "Of each partition of a topic that is made. 0: as the broker has it."});
  rows.push_back({"kafka.retention_hours", integer<kTable, &Kafka::retention_hours>(168, 1, 87'600), "hours",
                  Reload::kRestart, "How long a topic that is made keeps its records."});
  rows.push_back({"kafka.compression", choice<kTable, &Kafka::compression>(kCompressions, "lz4"), "",
                  Reload::kRestart, "Of what is sent."});
  rows.push_back({"kafka.linger_ms", integer<kTable, &Kafka::linger_ms>(5, 0, 60'000), "ms", Reload::kRestart,
                  "How long records are gathered for one request to the broker."});
  rows.push_back({"kafka.in_flight_bytes_max",
                  integer<kTable, &Kafka::in_flight_bytes_max>(32 * kMiB, kMiB, kGiB), "bytes",
                  Reload::kRestart, "Records that are sent and not acknowledged, before compression."});
  rows.push_back({"kafka.record_events_max",
                  integer<kTable, &Kafka::record_events_max>(1, 1, bounds::kBatchEventsMax), "events",
                  Reload::kRestart,
                  "More than 1: events of one batch share a record, one JSON object to a line."});
  rows.push_back(
      {"kafka.record_bytes_max", integer<kTable, &Kafka::record_bytes_max>(1'000'000, 64 * kKiB, 64 * kMiB),
       "bytes", Reload::kRestart,
       "Longest record, before compression; `kavachd topics create` has the topics take that much. "
       "A single event is never longer than 20 KiB."});
  rows.push_back({"kafka.receipt", choice<kTable, &Kafka::receipt>(kReceipts, "broker"), "", Reload::kLive,
                  "What a 202 waits for: all in-sync replicas have the batch, or this node's disk has it. "
                  "Kavach-Receipt says which of both it was."});
  rows.push_back({"kafka.receipt_when_away",
                  choice<kTable, &Kafka::receipt_when_away>(kReceiptsWhenAway, "journal"), "", Reload::kLive,
                  "With kafka.receipt = \"broker\" and a broker that is away: answer 202 with the journal's "
                  "receipt, or refuse new batches (429 backpressure)."});
  rows.push_back({"kafka.receipt_timeout_ms", integer<kTable, &Kafka::receipt_timeout_ms>(2'000, 1, 60'000),
                  "ms", Reload::kLive,
                  "No 202 waits longer for the broker. One that needs longer counts as away until it is "
                  "quicker again."});
  rows.push_back({"kafka.security", choice<kTable, &Kafka::security>(kSecurities, "plaintext"), "",
                  Reload::kRestart, "How the brokers are spoken to; ssl is TLS."});
  rows.push_back({"kafka.sasl_mechanism", choice<kTable, &Kafka::sasl_mechanism>(kSaslMechanisms, "PLAIN"),
                  "", Reload::kRestart, "With kafka.security sasl_plaintext and sasl_ssl."});
  rows.push_back({"kafka.sasl_user", text<kTable, &Kafka::sasl_user>("", Rule::kAny), "", Reload::kRestart,
                  "Whom the brokers know this node as."});
  rows.push_back({"kafka.sasl_password", text<kTable, &Kafka::sasl_password>("", Rule::kSecret), "",
                  Reload::kRestart, "Better in KAVACH_KAFKA_SASL_PASSWORD than in a file."});
  rows.push_back({"kafka.ca_file", text<kTable, &Kafka::ca_file>("", Rule::kAny), "", Reload::kRestart,
                  "PEM file with the certificates that vouch for the brokers. Empty: the system's."});
}

void add_writer(std::vector<Setting>& rows) {
  using Writer = Config::Writer;
  constexpr auto kTable = &Config::writer;
  rows.push_back({"writer.enabled", boolean<kTable, &Writer::enabled>(false), "", Reload::kRestart,
                  "Carry events from Kafka into the store inside `kavachd serve` too, and not only in "
                  "`kavachd writer`."});
  rows.push_back({"writer.group", text<kTable, &Writer::group>("kavach-writer", Rule::kNotEmpty), "",
                  Reload::kRestart,
                  "The consumer group of all writers: they share the partitions. <group>-dlq remembers which "
                  "dead letters were replayed."});
  rows.push_back({"writer.session_timeout_ms",
                  integer<kTable, &Writer::session_timeout_ms>(10'000, 1'000, 300'000), "ms",
                  Reload::kRestart,
                  "After this long without a sign of a writer the others take over its partitions. Within "
                  "what the brokers allow (group.min.session.timeout.ms, 6,000)."});
  rows.push_back({"writer.batch_events_max", integer<kTable, &Writer::batch_events_max>(10'000, 1, 1'000'000),
                  "events", Reload::kRestart, "Most events that a writer stores in one transaction."});
  rows.push_back({"writer.batch_delay_ms", integer<kTable, &Writer::batch_delay_ms>(100, 0, 60'000), "ms",
                  Reload::kRestart, "How long a writer gathers events before it stores them."});
  rows.push_back(
      {"writer.port", integer<kTable, &Writer::port>(8001, 0, 65'535), "", Reload::kRestart,
       "Where `kavachd writer` answers /healthz, /readyz and /metrics, on http.address. 0: any free "
       "one, which the log then names."});
}

void add_control(std::vector<Setting>& rows) {
  using Control = Config::Control;
  constexpr auto kTable = &Config::control;
  rows.push_back({"control.workers", integer<kTable, &Control::workers>(2, 1, 64), "threads",
                  Reload::kRestart, "Threads of the control API, each with a connection to the store."});
  rows.push_back(
      {"control.nice", integer<kTable, &Control::nice>(19, 0, 19), "", Reload::kRestart,
       "How far these threads stand back behind ingest where cores are short; 0: not at all, 19: they only "
       "run where nobody else wants to (SCHED_IDLE)."});
  rows.push_back({"control.password_hashes_max", integer<kTable, &Control::password_hashes_max>(1, 1, 64),
                  "threads", Reload::kRestart,
                  "Passwords that are hashed at the same time: each takes a core for tens of ms."});
  rows.push_back(
      {"control.tries_max", integer<kTable, &Control::tries_max>(10, 1, 1'000'000), "tries", Reload::kRestart,
       "Of one action (logging in, a code, registering) by one address, and for one account, within "
       "15 minutes."});
  rows.push_back(
      {"control.jwt_secret",
       text<kTable, &Control::jwt_secret>("", Rule::kSecret),
       "",
       Reload::kRestart,
       "What signs the tokens of the control API, the same on all nodes of a fleet; at least 32 characters. "
       "Empty: derived from control.secret_key. Also AGENTKAVACH_JWT_SECRET.",
       {"AGENTKAVACH_JWT_SECRET"}});
  rows.push_back(
      {"control.secret_key", text<kTable, &Control::secret_key>("", Rule::kSecret), "", Reload::kRestart,
       "What encrypts the targets and secrets of alerts in the store: 64 hexadecimal digits (openssl rand "
       "-hex 32) or a passphrase, the same on all nodes of a fleet. Empty: a key file of this node's own, "
       "made at the first start."});
  rows.push_back({"control.cors_origins", text<kTable, &Control::cors_origins>("", Rule::kAny), "",
                  Reload::kRestart,
                  "Origins whose pages may call the control API from a browser, with commas: "
                  "https://app.example.com, http://localhost:3000."});
  rows.push_back({"control.trusted_proxies", text<kTable, &Control::trusted_proxies>("", Rule::kAny), "",
                  Reload::kRestart,
                  "Addresses and prefixes of load balancers whose X-Forwarded-For says who a client is, with "
                  "commas: 10.0.0.0/8, 192.0.2.7. Tries of passwords and codes are counted by client."});
}

void add_billing(std::vector<Setting>& rows) {
  using Billing = Config::Billing;
  constexpr auto kTable = &Config::billing;
  rows.push_back({"billing.stripe_api_key", text<kTable, &Billing::stripe_api_key>("", Rule::kSecret), "",
                  Reload::kRestart,
                  "Stripe's secret key. Empty: no Stripe; outside node.environment \"prod\" tiers are then "
                  "bought and changed without paying."});
  rows.push_back({"billing.stripe_webhook_secret",
                  text<kTable, &Billing::stripe_webhook_secret>("", Rule::kSecret), "", Reload::kRestart,
                  "What Stripe signs its events for POST /v1/billing/webhook with. Empty: all are refused."});
  rows.push_back({"billing.stripe_url",
                  text<kTable, &Billing::stripe_url>("https://api.stripe.com", Rule::kNotEmpty), "",
                  Reload::kRestart, "Where Stripe's API is."});
  rows.push_back({"billing.price_pro", text<kTable, &Billing::price_pro>("", Rule::kAny), "",
                  Reload::kRestart, "Stripe's id of the monthly price of pro: price_..."});
  rows.push_back({"billing.price_max", text<kTable, &Billing::price_max>("", Rule::kAny), "",
                  Reload::kRestart, "Stripe's id of the monthly price of max."});
  rows.push_back(
      {"billing.success_url",
       text<kTable, &Billing::success_url>("http://localhost:3000/billing?checkout=success", Rule::kNotEmpty),
       "", Reload::kRestart, "Where a checkout that was paid leads, unless it says so itself."});
  rows.push_back({"billing.cancel_url",
                  text<kTable, &Billing::cancel_url>("http://localhost:3000/billing?checkout=cancelled",
                                                     Rule::kNotEmpty),
                  "", Reload::kRestart, "Where a checkout that was given up leads, likewise."});
  rows.push_back({"billing.return_url",
                  text<kTable, &Billing::return_url>("http://localhost:3000/billing", Rule::kNotEmpty), "",
                  Reload::kRestart, "Where Stripe's customer portal leads back to, likewise."});
  rows.push_back(
      {"pricing.file", text<&Config::pricing, &Config::Pricing::file>("", Rule::kAny), "", Reload::kLive,
       "TOML file with the models' prices (configs/pricing.toml). Empty: the same prices, built in. "
       "Read again on SIGHUP."});
}

void add_alerts(std::vector<Setting>& rows) {
  using Alerts = Config::Alerts;
  constexpr auto kTable = &Config::alerts;
  rows.push_back(
      {"alerts.allow_private_targets", boolean<kTable, &Alerts::allow_private_targets>(false), "",
       Reload::kRestart,
       "Send alerts and webhooks to private, loopback and link-local addresses too: an organization could "
       "then make this node talk to whatever is reachable from it."});
  rows.push_back(
      {"alerts.pagerduty_url",
       text<kTable, &Alerts::pagerduty_url>("https://events.pagerduty.com/v2/enqueue", Rule::kNotEmpty), "",
       Reload::kRestart, "Where PagerDuty takes events."});
  rows.push_back({"alerts.dashboard_url",
                  text<kTable, &Alerts::dashboard_url>("http://localhost:3000", Rule::kNotEmpty), "",
                  Reload::kRestart, "Where messages lead: what stands before /dashboard/agents/."});
  rows.push_back({"alerts.slack_webhook_url",
                  text<kTable, &Alerts::slack_webhook_url>("", Rule::kSecret),
                  "",
                  Reload::kRestart,
                  "The Slack webhook of rules that have no target. Also AGENTKAVACH_SLACK_WEBHOOK_URL.",
                  {"AGENTKAVACH_SLACK_WEBHOOK_URL"}});
  rows.push_back({"alerts.pagerduty_routing_key",
                  text<kTable, &Alerts::pagerduty_routing_key>("", Rule::kSecret),
                  "",
                  Reload::kRestart,
                  "The PagerDuty key of rules that have no target. Also AGENTKAVACH_PD_ROUTING_KEY, "
                  "AGENTKAVACH_PAGERDUTY_ROUTING_KEY.",
                  {"AGENTKAVACH_PD_ROUTING_KEY", "AGENTKAVACH_PAGERDUTY_ROUTING_KEY"}});
  rows.push_back({"alerts.email",
                  text<kTable, &Alerts::email>("", Rule::kAny),
                  "",
                  Reload::kRestart,
                  "Who gets the mails of rules that have no target. Empty: the organization's owner. Also "
                  "AGENTKAVACH_ALERT_EMAIL.",
                  {"AGENTKAVACH_ALERT_EMAIL"}});
  rows.push_back(
      {"alerts.kill_on_server", boolean<kTable, &Alerts::kill_on_server>(false), "", Reload::kRestart,
       "A kill rule that fires also makes ingest refuse the agent, until it is reactivated. If not, "
       "its SDK alone stops it."});
  rows.push_back({"alerts.workers", integer<kTable, &Alerts::workers>(4, 1, 64), "threads", Reload::kRestart,
                  "That send messages; one organization has at most half of them."});
  rows.push_back(
      {"alerts.retry_ms", integer<kTable, &Alerts::retry_ms>(5'000, 10, kHourMs), "ms", Reload::kRestart,
       "After how long a message that could not be delivered is tried again; doubled each time, up "
       "to 15 minutes."});
  rows.push_back({"alerts.retry_hours", integer<kTable, &Alerts::retry_hours>(24, 1, 720), "hours",
                  Reload::kRestart, "After how long it is given up."});
}

void add_mail(std::vector<Setting>& rows) {
  using Mail = Config::Mail;
  constexpr auto kTable = &Config::mail;
  rows.push_back({"mail.kind", choice<kTable, &Mail::kind>(kMailKinds, "none"), "", Reload::kRestart,
                  "How mail is sent. outbox: into files, for development; none: mail fails."});
  rows.push_back({"mail.from", text<kTable, &Mail::from>("Kavach <kavach@localhost>", Rule::kNotEmpty), "",
                  Reload::kRestart, "The sender: an address, or Name <address>."});
  rows.push_back({"mail.outbox_directory",
                  text<kTable, &Mail::outbox_directory>("var/outbox", Rule::kNotEmpty), "", Reload::kRestart,
                  "With mail.kind outbox: a file for each mail, readable by its owner only."});
  rows.push_back({"mail.smtp_url", text<kTable, &Mail::smtp_url>("", Rule::kAny), "", Reload::kRestart,
                  "With mail.kind smtp: smtp://host[:port], or smtps:// for TLS from the first byte."});
  rows.push_back(
      {"mail.smtp_security", choice<kTable, &Mail::smtp_security>(kSmtpSecurities, "starttls"), "",
       Reload::kRestart,
       "Of an smtp:// server. starttls: nothing is sent without TLS; none: mail and password in clear."});
  rows.push_back({"mail.smtp_user", text<kTable, &Mail::smtp_user>("", Rule::kAny), "", Reload::kRestart,
                  "Whom the mail server knows this node as. Empty: it does not ask."});
  rows.push_back({"mail.smtp_password", text<kTable, &Mail::smtp_password>("", Rule::kSecret), "",
                  Reload::kRestart, "Better in KAVACH_MAIL_SMTP_PASSWORD than in a file."});
  rows.push_back({"mail.ca_file", text<kTable, &Mail::ca_file>("", Rule::kAny), "", Reload::kRestart,
                  "PEM file with the certificates that vouch for the mail server. Empty: the system's."});
  rows.push_back({"mail.resend_url",
                  text<kTable, &Mail::resend_url>("https://api.resend.com", Rule::kNotEmpty), "",
                  Reload::kRestart, "With mail.kind resend: where POST /emails is."});
  rows.push_back({"mail.resend_api_key",
                  text<kTable, &Mail::resend_api_key>("", Rule::kSecret),
                  "",
                  Reload::kRestart,
                  "Also RESEND_API_KEY, AGENTKAVACH_RESEND_API_KEY.",
                  {"RESEND_API_KEY", "AGENTKAVACH_RESEND_API_KEY"}});
}

void add_log(std::vector<Setting>& rows) {
  using Log = Config::Log;
  constexpr auto kTable = &Config::log;
  rows.push_back({"log.level", choice<kTable, &Log::level>(kLogLevels, "info"), "", Reload::kLive,
                  "The least important lines that are written."});
  rows.push_back({"log.format", choice<kTable, &Log::format>(kLogFormats, "text"), "", Reload::kRestart,
                  "Lines for people, or one JSON object a line."});
}

std::vector<Setting> make_table() {
  std::vector<Setting> rows;
  add_node(rows);
  add_engine(rows);
  add_http(rows);
  add_ingest(rows);
  add_quota(rows);
  add_redis(rows);
  add_sink(rows);
  add_kafka(rows);
  add_writer(rows);
  add_control(rows);
  add_billing(rows);
  add_alerts(rows);
  add_mail(rows);
  add_log(rows);
  return rows;
}

}  // namespace

std::span<const Setting> settings() {
  static const std::vector<Setting> table = make_table();
  return table;
}

std::string Setting::env_name() const {
  std::string env = "KAVACH_";
  for (const char c : key) {
    const bool lower = c >= 'a' && c <= 'z';
    env.push_back(c == '.' ? '_' : lower ? static_cast<char>(c - 'a' + 'A') : c);
  }
  return env;
}

}  // namespace kavach
