// The race to SQLite.
#include <fmt/format.h>

#include <filesystem>
#include <stdexcept>
#include <thread>

#include "bench/pipeline/races.h"
#include "sink/shipper.h"
#include "sink/store/event_rows.h"
#include "sink/store/sql.h"
#include "sink/store/store.h"

namespace kavach::bench {
namespace {

constexpr const char* kInsertEvent =
    "INSERT INTO events (id, org_id, project_id, ingest_system, ts_us, received_at_us, agent_name, provider, "
    "model, run_id, input_tokens, output_tokens, cost_nano, cost_source, duration_ms, is_error, dedup_key) "
    "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, 'client', ?14, ?15, ?16)";
constexpr const char* kInsertKey =
    "INSERT INTO dedup_keys (project_id, dedup_key, seen_at_us) VALUES (?1, ?2, ?3)";

// A database with Kavach's schema; its files go with it.
class ScratchDatabase {
 public:
  ScratchDatabase(const std::string& directory, std::string_view leg)
      : path_(fmt::format("{}/race-{}.db", directory, leg)) {
    remove();
    store_ = sink::open_sqlite(path_).value();
  }
  ~ScratchDatabase() {
    store_.reset();
    remove();
  }
  ScratchDatabase(const ScratchDatabase&) = delete;
  ScratchDatabase& operator=(const ScratchDatabase&) = delete;

  std::unique_ptr<sink::Store> take_store() { return std::move(store_); }
  // The pragmas are Kavach's too: it is Kavach's connection.
  sink::Connection connect() {
    store_.reset();
    return sink::connect_sqlite(path_).value();
  }
  void check(std::size_t rows) {
    auto connection = connect();
    const auto found = connection.prepare("SELECT COUNT(*) FROM events").value().scalar().value();
    if (static_cast<std::size_t>(found) != rows) {
      throw std::runtime_error(fmt::format("{} has {} of {} rows", path_, found, rows));
    }
  }

 private:
  void remove() const {
    std::error_code ignored;
    for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path_ + suffix, ignored);
  }

  std::string path_;
  std::unique_ptr<sink::Store> store_;
};

Leg run_shipper(const RaceOptions& options, const Workload& workload) {
  FilledJournal filled(options.directory, workload);
  ScratchDatabase database(options.directory, "kavach");
  auto shipper = sink::Shipper::create(filled.journal(), database.take_store(),
                                       {.batch_events_max = options.transaction_events,
                                        .batch_delay_us = 0,  // all of it is there
                                        .journal_directory = filled.directory()})
                     .value();
  const LegTimer timer("kavach");
  shipper->start();
  while (shipper->metrics().events.value() < workload.events()) {
    if (shipper->metrics().failures.value() != 0) throw std::runtime_error("the shipper has failed");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const Leg leg = timer.stop();
  shipper->stop(kMicrosPerSecond);
  shipper.reset();
  database.check(workload.events());
  return leg;
}

// What stands in a row and has to be written as text; made before the time is taken.
struct ReadyTexts {
  std::vector<sink::UuidText> orgs, projects;  // by batch
  std::vector<sink::UuidText> ids;             // by event

  explicit ReadyTexts(const Workload& workload) {
    for (const Batch& batch : workload.batches()) {
      orgs.emplace_back(batch.org_id);
      projects.emplace_back(batch.project_id);
      for (std::uint32_t i = 0; i < batch.events.size(); ++i) ids.emplace_back(event_id(batch.id, i));
    }
  }
};

Leg run_inserts(const RaceOptions& options, const Workload& workload, bool with_keys) {
  const std::string name = with_keys ? "tables" : "ceiling";
  ScratchDatabase database(options.directory, name);
  {
    const ReadyTexts texts(workload);
    auto connection = database.connect();
    sink::Statement insert_event = connection.prepare(kInsertEvent).value();
    sink::Statement insert_key = connection.prepare(kInsertKey).value();
    const LegTimer timer(name);
    connection.execute("BEGIN IMMEDIATE").value();
    std::size_t row = 0;
    for (std::size_t b = 0; b < workload.batches().size(); ++b) {
      const Batch& batch = workload.batches()[b];
      for (const Event& event : batch.events) {
        if (with_keys) insert_key.run(texts.projects[b], event.idempotency_key, batch.received_at).value();
        insert_event
            .run(texts.ids[row], texts.orgs[b], texts.projects[b], sink::name_of(batch.system),
                 event.timestamp, batch.received_at, event.agent_name, event.provider, event.model,
                 event.run_id, event.input_tokens, event.output_tokens, event.cost, event.duration_ms,
                 event.is_error, event.idempotency_key)
            .value();
        if (++row % options.transaction_events == 0) connection.execute("COMMIT; BEGIN IMMEDIATE").value();
      }
    }
    connection.execute("COMMIT").value();
    const Leg leg = timer.stop();
    database.check(workload.events());
    return leg;
  }
}

}  // namespace

std::vector<Leg> race_sqlite(const RaceOptions& options) {
  const Workload workload(options.workload);
  std::vector<Leg> legs;
  if (!options.ceiling_first) legs.push_back(run_shipper(options, workload));
  legs.push_back(run_inserts(options, workload, false));
  if (options.ceiling_first) legs.push_back(run_shipper(options, workload));
  legs.push_back(run_inserts(options, workload, true));
  return legs;
}

}  // namespace kavach::bench
