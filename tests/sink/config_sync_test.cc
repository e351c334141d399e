// Config sync beside other writers: who says what is stored already waits for nobody.
#include "sink/store/control/config_sync.h"

#include <doctest/doctest.h>

#include <string>

#include "tests/sink/store_fixture.h"

namespace kavach::sink::test {
namespace {

struct SyncFixture : StoreFixture {
  std::unique_ptr<ControlStore> control = open_control();
  const std::string org = Sql::must(store->create_org("o", "pro", {})).id.text();
  ConfigSync config{.agent_name = "a",
                    .budgets = {{"cost", "daily", "usd", 5}, {"calls", "per_run", "calls", 7}},
                    .alerts = {alert("slack"), alert("email")},
                    .org_budget = SyncedBudget{"cost", "monthly", "usd", 50},
                    .org_alerts = std::vector<AlertConfig>{alert("kill")}};

  static AlertConfig alert(std::string channel) {
    AlertConfig made;
    made.channel = std::move(channel);
    made.threshold = 0.5;
    made.budget_type = "cost";
    made.target_sealed = "sealed";
    return made;
  }
  StoreResult<ConfigSynced> sync() {
    return sync_config(*control, org, config,
                       [](std::string_view stored, std::string_view given) { return stored == given; });
  }
  // Nobody else can write until it goes.
  Transaction lock_out_writers() {
    auto locked = Sql::must(Transaction::begin_write(sql.connection()));
    if (sql.connection().dialect() == Dialect::kPostgres)
      sql.execute("LOCK TABLE agents, budgets, alert_configs, alert_fired IN SHARE MODE");
    control->connection().set_lock_timeout(100);
    return locked;
  }
};

}  // namespace

TEST_CASE_FIXTURE(SyncFixture, "the same again needs no writer's lock, and says the same") {
  const auto first = Sql::must(sync());
  CHECK(first.org_budget_changed);
  const auto locked = lock_out_writers();
  const auto again = Sql::must(sync());
  CHECK(again.budgets == 2);
  CHECK(again.alerts == 2);
  CHECK(again.org_alerts == 1);
  CHECK_FALSE(again.org_budget_changed);
}

TEST_CASE_FIXTURE(SyncFixture, "whatever differs is written, and so waits for the lock") {
  Sql::must(sync());
  const auto is_written = [this] {
    const auto locked = lock_out_writers();
    const auto synced = sync();
    return !synced && synced.error().retryable;
  };
  CHECK_FALSE(is_written());
  const ConfigSync stored = config;
  for (const std::function<void()>& change : std::initializer_list<std::function<void()>>{
           [this] { config.agent_name = "new"; }, [this] { config.budgets[0].limit = 6; },
           [this] { config.budgets.pop_back(); }, [this] { config.alerts.pop_back(); },
           [this] { config.alerts[0].secret_sealed = "new"; }, [this] { config.org_budget->limit = 51; },
           [this] { config.org_alerts->clear(); }}) {
    config = stored;
    change();
    CHECK(is_written());
  }
}

}  // namespace kavach::sink::test
