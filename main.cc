// kavachd: the front door. Reads the command line and the config, and runs the command: the node itself
// (http/node.h), or one of an administrator's.
#include <malloc.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>
#include <iostream>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/bounds.h"
#include "engine/config.h"
#include "engine/ids.h"
#include "engine/log.h"
#include "engine/timestamp.h"
#include "http/auth/api_key.h"
#include "http/auth/policy.h"
#include "http/backends.h"
#include "http/control/pricing.h"
#include "http/ingest/utf8.h"
#include "http/node.h"
#include "http/reconcile_command.h"
#include "http/writer_node.h"
#include "quota/limits.h"
#include "quota/redis/announce.h"
#include "quota/redis/stream.h"
#include "quota/redis/url.h"
#include "quota/tiers.h"
#include "sink/journal/journal.h"
#include "sink/kafka/topics.h"
#include "sink/store/store.h"
#include "sink/writer/dead_letters.h"

extern char** environ;

namespace kavach {
namespace {

// Exit codes, for scripts: 1 something failed (http/node.h), 2 the command line or the config is wrong.
using http::kExitFailed;
constexpr int kExitUsage = 2;

int fail(const std::string& message, int code = kExitFailed) {
  std::cerr << "kavachd: " << message << '\n';
  return code;
}

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out.push_back(c);
    }
  }
  return out + "\"";
}

Result<Config> read_config(const std::string& path) {
  std::vector<std::string> environment;
  for (char** variable = environ; *variable != nullptr; ++variable) environment.emplace_back(*variable);
  return load_config(path, environment);
}

// --- serve -------------------------------------------------------------------------------------------------

void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// What a process that runs until a signal needs before its first thread. The signals are blocked from now on.
sigset_t prepare_process() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  raise_descriptor_limit();
  // Large bodies and batches go back to the system when they are freed: a fixed threshold, since glibc would
  // raise its own with every such free and keep the memory.
  ::mallopt(M_MMAP_THRESHOLD, 256 << 10);
  ::mallopt(M_TRIM_THRESHOLD, 4 << 20);
  return signals;
}

int serve(const std::string& config_path, Config config) {
  const sigset_t signals = prepare_process();
  http::Node node(std::move(config), [config_path] { return read_config(config_path); });
  if (const Status built = node.build(); !built) return fail(built.error().message);
  return node.run(signals);
}

int write(const Config& config) {
  const sigset_t signals = prepare_process();
  http::WriterNode node(config);
  if (const Status built = node.build(); !built) return fail(built.error().message);
  return node.run(signals);
}

// --- the other commands ------------------------------------------------------------------------------------

// What a command line may say; each command declares the part that it takes.
struct Arguments {
  std::string config_path;
  std::string name;
  std::string key;
  Uuid org;
  sink::OrgChange change;
  std::string budget_type;
  std::string period;
  double limit = 0;
  std::string reason;
  bool print = false;
  bool settings = false;
  bool json = false;
  bool all = false;
  http::ReconcileArguments reconcile;
};

int check(const Config& config, const Arguments& arguments) {
  if (auto tiers = quota::TierTable::load(config.quota.tiers_file); !tiers) {
    return fail(tiers.error().message, kExitUsage);
  }
  if (auto prices = http::PriceList::load(config.pricing.file); !prices)
    return fail(prices.error().message, kExitUsage);
  if (auto tls = http::load_tls(config); !tls) return fail(tls.error().message, kExitUsage);
  if (arguments.print) {
    std::cout << print_config(config);
  } else {
    std::cout << "config is valid\n";
  }
  return 0;
}

// Prints the line of JSON that `task` makes of the store.
template <typename Task>
int administer(const Config& config, Task task) {
  auto store = http::open_store(config);
  if (!store) return fail(store.error().message);
  const sink::StoreResult<std::string> line = task(**store);
  if (!line) return fail(line.error().message);
  std::cout << *line << '\n';
  return 0;
}

// The same for a command that needs the tiers, and may name one of them.
template <typename Task>
int administer_with_tiers(const Config& config, const std::optional<std::string>& named, Task task) {
  const auto tiers = quota::TierTable::load(config.quota.tiers_file);
  if (!tiers) return fail(tiers.error().message, kExitUsage);
  if (named && tiers->find(*named) == nullptr) {
    return fail("--tier: there is no tier '" + *named + "' (known: " + tiers->names() + ")", kExitUsage);
  }
  return administer(config, [&](sink::Store& store) { return task(store, *tiers); });
}

std::string json_own_limit(const sink::OwnLimit& limit) {
  if (!limit) return R"("tier")";
  return *limit == sink::kNoLimit ? R"("unlimited")" : std::to_string(*limit);
}

std::string json_limit(std::int64_t limit) {
  return limit == quota::kUnlimited ? "null" : std::to_string(limit);
}

std::string json_budget(const sink::BudgetRecord& budget) {
  return fmt::format(R"({{"budget_id":{},"budget_type":{},"period":{},"limit_value":{},"unit":{}}})",
                     json_string("budget_" + budget.id), json_string(budget.type), json_string(budget.period),
                     budget.limit, json_string(budget.unit));
}

std::string json_budgets(const std::vector<sink::BudgetRecord>& budgets) {
  std::vector<std::string> rows;
  for (const sink::BudgetRecord& budget : budgets) rows.push_back(json_budget(budget));
  return fmt::format("[{}]", fmt::join(rows, ","));
}

std::string json_agent(const sink::AgentState& agent) {
  return fmt::format(R"({{"org_id":"{}","agent_name":{},"status":"{}","killed_at":{},"kill_reason":{}}})",
                     agent.org_id.text(), json_string(agent.name), agent.killed_at ? "killed" : "active",
                     agent.killed_at ? json_string(format_timestamp(*agent.killed_at)) : "null",
                     agent.kill_reason.empty() ? "null" : json_string(agent.kill_reason));
}

// `limits` is what is in force, null without limit; `own_limits` is what `org set` was told.
std::string json_org(const sink::OrgDetails& details, const quota::TierTable& tiers) {
  constexpr std::string_view kLimits = R"({{"events_per_day":{},"max_agents":{},"burst_per_minute":{}}})";
  const sink::OrgRecord& org = details.org;
  const quota::Policy policy = http::limits_of(org, tiers);
  std::vector<std::string> killed;
  for (const std::string& name : details.killed_agents) killed.push_back(json_string(name));
  return fmt::format(
      R"({{"org_id":"{}","project_id":"{}","name":{},"tier":{},"subscription_status":{},"limits":{},"own_limits":{},)"
      R"("budgets":{},"killed_agents":[{}]}})",
      org.id.text(), org.project_id.text(), json_string(org.name), json_string(org.tier),
      json_string(org.subscription_status),
      fmt::format(kLimits, json_limit(policy.events_per_day), json_limit(policy.agents_max),
                  json_limit(policy.burst_per_minute)),
      fmt::format(kLimits, json_own_limit(org.limits.events_per_day), json_own_limit(org.limits.agents_max),
                  json_own_limit(org.limits.burst_per_minute)),
      json_budgets(details.budgets), fmt::join(killed, ","));
}

// The JSON of a result, or its failure.
template <typename T, typename Render>
sink::StoreResult<std::string> rendered(const sink::StoreResult<T>& result, Render render) {
  if (!result) return result.error();
  return render(*result);
}

int create_org(const Config& config, const Arguments& arguments) {
  const std::string tier = arguments.change.tier.value_or("free");
  return administer_with_tiers(config, tier, [&](sink::Store& store, const quota::TierTable&) {
    const http::MintedKey key = http::mint_key(config.node.environment, "default");
    return rendered(store.create_org(arguments.name, tier, key.stored), [&](const sink::OrgRecord& org) {
      return fmt::format(R"({{"org_id":"{}","project_id":"{}","name":{},"tier":{},"api_key":"{}"}})",
                         org.id.text(), org.project_id.text(), json_string(org.name), json_string(org.tier),
                         key.raw);
    });
  });
}

int show_org(const Config& config, const Arguments& arguments) {
  return administer_with_tiers(config, {}, [&](sink::Store& store, const quota::TierTable& tiers) {
    return rendered(store.show_org(arguments.org),
                    [&](const sink::OrgDetails& details) { return json_org(details, tiers); });
  });
}

int set_org(const Config& config, const Arguments& arguments) {
  const sink::OrgChange& change = arguments.change;
  if (change.is_empty()) return fail("org set: nothing to change (see --help)", kExitUsage);
  return administer_with_tiers(config, change.tier, [&](sink::Store& store, const quota::TierTable& tiers) {
    return rendered(store.change_org(arguments.org, change),
                    [&](const sink::OrgDetails& details) { return json_org(details, tiers); });
  });
}

int create_key(const Config& config, const Arguments& arguments) {
  return administer(config, [&](sink::Store& store) {
    const http::MintedKey minted = http::mint_key(config.node.environment, arguments.name);
    return rendered(store.create_key(arguments.org, minted.stored), [&](const sink::KeySummary& key) {
      return fmt::format(R"({{"key_id":"key_{}","org_id":"{}","name":{},"prefix":{},"api_key":"{}"}})",
                         key.id.text(), key.org_id.text(), json_string(key.name), json_string(key.prefix),
                         minted.raw);
    });
  });
}

int revoke_key(const Config& config, const Arguments& arguments) {
  const bool is_key = arguments.key.starts_with("ak_") || arguments.key.starts_with("cg_");
  if (is_key && arguments.key.size() > http::kKeyPrefixChars) {
    // Not repeated here: error messages end up in logs.
    return fail(fmt::format("this is a whole API key: name it by its id, or by its first {} characters",
                            http::kKeyPrefixChars),
                kExitUsage);
  }
  return administer(config, [&](sink::Store& store) {
    return rendered(store.revoke_key(arguments.key), [](const sink::KeySummary& key) {
      return fmt::format(R"({{"key_id":"key_{}","org_id":"{}","name":{},"prefix":{},"is_active":false}})",
                         key.id.text(), key.org_id.text(), json_string(key.name), json_string(key.prefix));
    });
  });
}

int set_budget(const Config& config, const Arguments& arguments) {
  return administer(config, [&](sink::Store& store) {
    return rendered(
        store.upsert_budget(arguments.org, arguments.budget_type, arguments.period, arguments.limit),
        json_budget);
  });
}

int list_budgets(const Config& config, const Arguments& arguments) {
  return administer(config, [&](sink::Store& store) {
    return rendered(store.list_budgets(arguments.org), [&](const std::vector<sink::BudgetRecord>& budgets) {
      return fmt::format(R"({{"org_id":"{}","budgets":{}}})", arguments.org.text(), json_budgets(budgets));
    });
  });
}

int delete_budget(const Config& config, const Arguments& arguments) {
  return administer(config, [&](sink::Store& store) {
    return rendered(store.delete_budget(arguments.org, arguments.budget_type, arguments.period), json_budget);
  });
}

int kill_agent(const Config& config, const Arguments& arguments) {
  return administer(config, [&](sink::Store& store) {
    return rendered(store.kill_agent(arguments.org, arguments.name, arguments.reason), json_agent);
  });
}

int reactivate_agent(const Config& config, const Arguments& arguments) {
  return administer(config, [&](sink::Store& store) {
    return rendered(store.reactivate_agent(arguments.org, arguments.name), json_agent);
  });
}

// --- announcing changes ------------------------------------------------------------------------------------

Status announce_change(const Config::Redis& redis, const quota::RedisUrl& url) {
  quota::Announcement announcement{.url = url, .tls = nullptr, .prefix = redis.prefix};
  if (url.tls) {
    auto tls = quota::RedisTls::load(redis.ca_file);
    if (!tls) return tls.error();
    announcement.tls = std::move(*tls);
  }
  return quota::announce_change(announcement);
}

// Tells the nodes of what the store now has. They find it by themselves, so that this never fails a command.
void announce_change(const Config& config) {
  if (config.redis.url.empty()) return;
  // What the command printed is safe, whatever comes of this: a new key is shown once.
  std::cout.flush();
  ::signal(SIGPIPE, SIG_IGN);
  const auto url = quota::RedisUrl::parse(config.redis.url);
  const Status announced = url ? announce_change(config.redis, *url) : Status(url.error());
  if (announced) return;
  std::cerr << fmt::format(
      "kavachd: warning: the change is stored, but not announced through {}: {}; "
      "nodes will see it with their next poll (auth.poll_ms)\n",
      url ? url->shown() : "Redis", announced.error().message);
}

// --- the journal -------------------------------------------------------------------------------------------

int inspect_journal(const Config& config, const Arguments& arguments) {
  const auto journal = sink::inspect_journal(config.journal.directory);
  if (!journal) return fail(journal.error().message);
  bool sound = true;
  std::string rows;
  for (const sink::SegmentSummary& s : journal->segments) {
    sound = sound && s.problem.empty();
    if (arguments.json) {
      rows += fmt::format(
          R"({}{{"file":{},"segment":{},"first_seq":{},"last_seq":{},"frames":{},"events":{},"bytes":{},"torn_bytes":{},"problem":{}}})",
          rows.empty() ? "" : ",", json_string(s.file), s.id, s.first_seq, s.last_seq, s.frames, s.events,
          s.bytes, s.torn_bytes, s.problem.empty() ? "null" : json_string(s.problem));
    } else {
      rows += fmt::format("{}  frames {}..{} ({}), {} events, {} bytes", s.file, s.first_seq, s.last_seq,
                          s.frames, s.events, s.bytes);
      if (s.torn_bytes > 0) {
        rows += fmt::format(", of which the last {} are no whole frame: never acknowledged, harmless",
                            s.torn_bytes);
      }
      rows += s.problem.empty() ? "\n" : ": " + s.problem + "\n";
    }
  }
  if (arguments.json) {
    std::cout << fmt::format(R"({{"journal_id":"{}","version":{},"segments":[{}]}})",
                             journal->journal_id.text(), journal->version, rows)
              << '\n';
  } else {
    std::cout << fmt::format("journal {} (format {})\n{}", journal->journal_id.text(), journal->version,
                             rows);
  }
  return sound ? 0 : kExitFailed;
}

// --- Kafka -------------------------------------------------------------------------------------------------

// What the dead-letter topic and the alerts' have: few records, and no order that matters.
constexpr int kSmallTopicPartitions = 3;

int make_topics(const Config& config, const Arguments&) {
  const Config::Kafka& kafka = config.kafka;
  std::vector<sink::TopicPlan> plans;
  const auto add = [&](const std::string& name, int partitions) {
    plans.push_back({.name = name,
                     .partitions = partitions,
                     .replication = kafka.replication == 0 ? -1 : static_cast<int>(kafka.replication),
                     .retention_ms = kafka.retention_hours * kMicrosPerHour / kMicrosPerMilli,
                     .record_bytes_max = kafka.record_bytes_max});
  };
  add(kafka.topic, static_cast<int>(kafka.partitions));
  add(kafka.dlq_topic, kSmallTopicPartitions);
  add(kafka.alerts_topic, kSmallTopicPartitions);
  const auto outcomes = sink::create_topics(http::kafka_options(config), plans);
  if (!outcomes) return fail(outcomes.error().message);
  for (const sink::TopicOutcome& topic : *outcomes) {
    std::cout << fmt::format(R"({{"topic":{},"created":{}}})", json_string(topic.name), topic.created)
              << '\n';
  }
  return 0;
}

// How long the brokers may say nothing to an administrator.
constexpr std::int64_t kKafkaPatience = 15 * kMicrosPerSecond;

// Gives `each` the dead letters that were not replayed yet, or all of them.
Result<std::unique_ptr<sink::DeadLetterReader>> read_dead_letters(
    const Config& config, bool all, const std::function<Status(sink::ConsumedRecord)>& each) {
  auto conf = sink::consumer_conf(http::kafka_options(config), config.writer.group + "-dlq");
  if (!conf) return conf.error();
  auto reader = sink::DeadLetterReader::create(conf->release(), config.kafka.dlq_topic, kKafkaPatience);
  if (!reader) return reader.error();
  if (Status read = (*reader)->read(all, each); !read) return read.error();
  return reader;
}

// A poison record's bytes need be no text.
std::string text_or_hex(std::string_view bytes) {
  if (http::is_utf8(bytes, http::Surrogates::kRefuse)) return std::string(bytes);
  return fmt::format(
      "0x{:02x}",
      fmt::join(std::span(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()), ""));
}

int list_dead_letters(const Config& config, const Arguments& arguments) {
  const auto print = [](const sink::ConsumedRecord& letter) -> Status {
    namespace names = sink::dead_letter_header;
    std::string from_topic, partition = "null", offset = "null", reason, headers;
    std::int64_t timestamp_ms = letter.timestamp_ms();
    for (const auto& [name, value] : letter.headers()) {
      if (name == names::kReason) {
        reason = value;
      } else if (name == names::kTopic) {
        from_topic = value;
      } else if (name == names::kPartition) {
        partition = value;
      } else if (name == names::kOffset) {
        offset = value;
      } else if (name == names::kTimestamp) {
        std::from_chars(value.data(), value.data() + value.size(), timestamp_ms);
      } else {
        headers += fmt::format("{}{}:{}", headers.empty() ? "" : ",", json_string(name),
                               json_string(text_or_hex(value)));
      }
    }
    std::cout
        << fmt::format(
               R"({{"letter":"{}/{}","reason":{},"topic":{},"partition":{},"offset":{},"accepted_at":{},"key":{},)"
               R"("headers":{{{}}},"value_bytes":{}}})",
               letter.partition(), letter.offset(), json_string(reason), json_string(from_topic), partition,
               offset, json_string(format_timestamp(timestamp_ms * kMicrosPerMilli)),
               json_string(text_or_hex(letter.key())), headers, letter.value().size())
        << '\n';
    return {};
  };
  const auto reader = read_dead_letters(config, arguments.all, print);
  return reader ? 0 : fail(reader.error().message);
}

int replay_dead_letters(const Config& config, const Arguments& arguments) {
  auto conf = sink::producer_conf(http::kafka_options(config));
  if (!conf) return fail(conf.error().message, kExitUsage);
  auto sender = sink::RecordSender::create(conf->release());
  if (!sender) return fail(sender.error().message);
  std::uint64_t replayed = 0;
  std::uint64_t left_out = 0;
  const auto replay = [&](const sink::ConsumedRecord& letter) -> Status {
    const auto record = sink::revive(letter);
    if (!record) {
      std::cerr << fmt::format("kavachd: left out: {}\n", record.error().message);
      ++left_out;
      return {};
    }
    if (Status sent = (*sender)->send(std::span(&*record, 1), kKafkaPatience); !sent) return sent;
    ++replayed;
    return {};
  };
  const auto reader = read_dead_letters(config, arguments.all, replay);
  if (!reader) return fail(fmt::format("{} records went back, then: {}", replayed, reader.error().message));
  if (Status noted = (*reader)->remember(); !noted) {
    return fail(fmt::format("{} records went back, which is not noted: {}", replayed, noted.error().message));
  }
  std::cout << fmt::format(R"({{"replayed":{},"left_out":{}}})", replayed, left_out) << '\n';
  return 0;
}

// --- reconciliation ----------------------------------------------------------------------------------------

int reconcile(const Config& config, const Arguments& arguments) {
  bool usage_error = false;
  const auto reconciled = http::run_reconcile(config, arguments.reconcile, usage_error);
  if (!reconciled) {
    return fail(reconciled.error().message, usage_error ? kExitUsage : http::kExitNotCompared);
  }
  std::cout << reconciled->text;
  return reconciled->exit_code;
}

void take_reconcile(CLI::App& command, Arguments& into) {
  command
      .add_option("--since", into.reconcile.since,
                  "Begin of the period: ISO 8601, or so long ago: 15m, 24h, 7d")
      ->default_str("24h");
  command.add_option("--until", into.reconcile.until, "Its end, likewise; at most the start of this command");
  command
      .add_option("--journal", into.reconcile.journals, "Another node's journal directory; may be repeated")
      ->allow_extra_args(false);
  command.add_flag("--json", into.reconcile.json, "JSON instead of text");
  command.footer(http::kReconcileHelp);
}

// --- the command line --------------------------------------------------------------------------------------

// As high as any limit in the table of tiers.
constexpr std::int64_t kLimitMax = 1'000'000'000'000;

void take_org(CLI::App& command, Arguments& into) {
  command
      .add_option_function<std::string>(
          "--org",
          [&into](const std::string& text) {
            const auto id = Uuid::parse(text);
            if (!id) throw CLI::ValidationError("--org", "'" + text + "' is no organization id (a UUID)");
            into.org = *id;
          },
          "Organization id")
      ->required();
}

void take_limit(CLI::App& command, const std::string& name, std::optional<sink::OwnLimit>& into,
                const std::string& help) {
  command.add_option_function<std::string>(
      name,
      [name, &into](const std::string& text) {
        std::int64_t number = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
        const bool is_number = error == std::errc() && end == text.data() + text.size();
        if (text == "tier") {
          into.emplace();
        } else if (text == "unlimited") {
          into.emplace(sink::kNoLimit);
        } else if (is_number && number >= 0 && number <= kLimitMax) {
          into.emplace(number);
        } else {
          throw CLI::ValidationError(
              name, fmt::format("'{}' is no number in 0..{}, nor 'unlimited', nor 'tier'", text, kLimitMax));
        }
      },
      help + ": a number, 'unlimited', or 'tier' (as its tier has it)");
}

void take_budget(CLI::App& command, Arguments& into) {
  take_org(command, into);
  command.add_option("--type", into.budget_type, "What it counts; only cost refuses events")
      ->required()
      ->check(CLI::IsMember(std::vector<std::string>{"cost", "tokens_total", "tokens_input", "tokens_output",
                                                     "calls", "duration"}));
  command.add_option("--period", into.period, "Of which period (UTC)")
      ->required()
      ->check(CLI::IsMember(std::vector<std::string>{"daily", "monthly", "total"}));
}

void take_agent(CLI::App& command, Arguments& into) {
  take_org(command, into);
  command.add_option("--name", into.name, "The agent's name, exactly as its events have it")
      ->required()
      ->check([](const std::string& name) {
        const bool is_name = http::is_utf8(name, http::Surrogates::kRefuse) && !name.empty() &&
                             http::count_chars(name) <= bounds::kNameCharsMax;
        return is_name ? std::string()
                       : fmt::format("must be UTF-8 of 1 to {} characters", bounds::kNameCharsMax);
      });
}

void take_nothing(CLI::App&, Arguments&) {}

struct Command {
  const char* group;  // the word before, or empty
  const char* name;
  const char* help;
  void (*declare)(CLI::App& command, Arguments& into);
  int (*run)(const Config& config, const Arguments& arguments);
  enum Trait : std::uint8_t { kNone, kAnnounced, kOverKafka };
  Trait trait = kNone;
};
constexpr auto kAnnounced = Command::kAnnounced;  // it changes the directory: nodes are told
constexpr auto kOverKafka = Command::kOverKafka;  // it needs kafka.brokers

const std::map<std::string, std::string> kGroups{{"org", "Organizations"},
                                                 {"key", "API keys"},
                                                 {"budget", "Budgets of organizations"},
                                                 {"agent", "Agents"},
                                                 {"journal", "The journal on disk"},
                                                 {"topics", "Kafka's topics"},
                                                 {"dlq", "Records that the writer could not store"}};

constexpr Command kCommands[] = {
    {"", "serve", "Take events until SIGTERM", take_nothing,
     [](const Config& config, const Arguments& arguments) { return serve(arguments.config_path, config); }},
    {"", "writer", "Carry events from Kafka into the store until SIGTERM", take_nothing,
     [](const Config& config, const Arguments&) { return write(config); }, kOverKafka},
    {"", "check", "Check the config and say what is wrong with it",
     [](CLI::App& command, Arguments& into) {
       command.add_flag("--print", into.print, "Print the whole config, with defaults and overrides");
       command.add_flag("--settings", into.settings, "Print the table of settings as Markdown");
     },
     check},
    {"org", "create", "Make an organization and its first key (JSON)",
     [](CLI::App& command, Arguments& into) {
       command.add_option("--name", into.name, "Display name")->required();
       command.add_option("--tier", into.change.tier, "Tier of its plan")->default_str("free");
     },
     create_org, kAnnounced},
    {"org", "show", "Its plan, limits, budgets and killed agents (JSON)", take_org, show_org},
    {"org", "set", "Change its plan, subscription or limits, all at once (JSON)",
     [](CLI::App& command, Arguments& into) {
       take_org(command, into);
       command.add_option("--tier", into.change.tier, "Tier of its plan");
       command.add_option("--status", into.change.subscription_status, "State of its subscription")
           ->check(CLI::IsMember(std::vector<std::string>{"active", "paused", "cancelled"}));
       take_limit(command, "--events-per-day", into.change.events_per_day, "Events of a day (UTC)");
       take_limit(command, "--max-agents", into.change.agents_max, "Agents active within 24 hours");
       take_limit(command, "--burst-per-minute", into.change.burst_per_minute, "Events within 60 seconds");
     },
     set_org, kAnnounced},
    {"key", "create", "Make a key; it is shown once (JSON)",
     [](CLI::App& command, Arguments& into) {
       take_org(command, into);
       command.add_option("--name", into.name, "What the key is for")->required();
     },
     create_key, kAnnounced},
    {"key", "revoke", "Revoke a key, by id or prefix (JSON)",
     [](CLI::App& command, Arguments& into) {
       command.add_option("key", into.key, "Key id, or a prefix that only one key has")->required();
     },
     revoke_key, kAnnounced},
    {"budget", "set", "Set the organization's budget of a type and period (JSON)",
     [](CLI::App& command, Arguments& into) {
       take_budget(command, into);
       command
           .add_option_function<double>(
               "--limit",
               [&into](const double& limit) {
                 if (!std::isfinite(limit) || limit <= 0) {
                   throw CLI::ValidationError("--limit",
                                              fmt::format("{} is no finite number above 0", limit));
                 }
                 into.limit = limit;
               },
               "In USD, tokens, calls or ms")
           ->required();
     },
     set_budget, kAnnounced},
    {"budget", "list", "The organization's budgets (JSON)", take_org, list_budgets},
    {"budget", "delete", "Take a budget away (JSON)", take_budget, delete_budget, kAnnounced},
    {"agent", "kill", "Refuse an agent's events, also before its first (JSON)",
     [](CLI::App& command, Arguments& into) {
       take_agent(command, into);
       command.add_option("--reason", into.reason, "Why, for whoever asks later");
     },
     kill_agent, kAnnounced},
    {"agent", "reactivate", "Take a killed agent's events again (JSON)", take_agent, reactivate_agent,
     kAnnounced},
    {"journal", "inspect", "Segments, frames, and what is damaged",
     [](CLI::App& command, Arguments& into) {
       command.add_flag("--json", into.json, "JSON instead of text");
     },
     inspect_journal},
    {"dlq", "list", "Dead letters that were not replayed, with their reasons (JSON, one line each)",
     [](CLI::App& command, Arguments& into) {
       command.add_flag("--all", into.all, "Those that were replayed, too");
     },
     list_dead_letters, kOverKafka},
    {"dlq", "replay", "Put the records of dead letters back into their topic, for the writer to try again",
     [](CLI::App& command, Arguments& into) {
       command.add_flag("--all", into.all, "Those that were replayed before, too");
     },
     replay_dead_letters, kOverKafka},
    {"topics", "create", "Make the topics that are missing (JSON, one line each)", take_nothing, make_topics,
     kOverKafka},
    {"", "reconcile", "Compare journal, topic and store: what is missing or doubled", take_reconcile,
     reconcile},
};

int run(int argc, char** argv) {
  CLI::App app{"kavachd: ingest tier for LLM usage events"};
  app.set_version_flag("--version", std::string("kavachd ") + KAVACH_VERSION);
  app.require_subcommand(1);
  Arguments arguments;
  std::map<std::string, CLI::App*> groups{{"", &app}};
  std::vector<std::pair<CLI::App*, const Command*>> declared;
  for (const Command& command : kCommands) {
    CLI::App*& group = groups[command.group];
    if (group == nullptr) {
      group = app.add_subcommand(command.group, kGroups.at(command.group))->require_subcommand(1);
    }
    CLI::App* const parser = group->add_subcommand(command.name, command.help);
    parser->add_option("-c,--config", arguments.config_path,
                       "TOML file; defaults and KAVACH_ variables when left out");
    command.declare(*parser, arguments);
    declared.emplace_back(parser, &command);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  if (arguments.settings) {
    std::cout << settings_markdown();
    return 0;
  }
  const Result<Config> config = read_config(arguments.config_path);
  if (!config) return fail("the config is wrong:\n" + config.error().message, kExitUsage);
  log::init({.level = http::level_of(config->log.level), .json = config->log.format == "json"});
  for (const auto& [parser, command] : declared) {
    if (!parser->parsed()) continue;
    if (command->trait == kOverKafka && config->kafka.brokers.empty()) {
      return fail("kafka.brokers names none", kExitUsage);
    }
    const int code = command->run(*config, arguments);
    if (code == 0 && command->trait == kAnnounced) announce_change(*config);
    return code;
  }
  return kExitUsage;  // not reached: a command is required
}

}  // namespace
}  // namespace kavach

int main(int argc, char** argv) {
  try {
    return kavach::run(argc, argv);
  } catch (const std::exception& error) {
    return kavach::fail(error.what());
  }
}
