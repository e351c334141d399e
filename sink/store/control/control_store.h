// ControlStore: one SQL connection of the control API, for one worker at a time.
//
// The SQL of each resource is in a file of its own beside this one (accounts.h, keys.h, ...): functions that
// take a ControlStore, never text that was put together from input. Statements are prepared once a connection
// and found by their text.
//
// Blocking; never on a shard's loop.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/clock.h"
#include "engine/ids.h"
#include "sink/store/sql.h"
#include "sink/store/store.h"

namespace kavach::sink {

class ControlStore {
 public:
  ControlStore(Connection connection, const Clock& clock)
      : connection_(std::move(connection)), clock_(clock) {}

  Connection& connection() noexcept { return connection_; }
  WallMicros now() const noexcept { return clock_.wall(); }
  Uuid new_id() noexcept { return make_uuid7(now(), random_); }
  Random& random() noexcept { return random_; }

  // The prepared statement of `sql`. REQUIRES: `sql` is one of the program's own texts.
  StoreResult<Statement*> statement(std::string_view sql);

  // Runs it; how many rows it changed.
  template <typename... Values>
  StoreResult<std::int64_t> run(std::string_view sql, const Values&... values) {
    auto prepared = statement(sql);
    if (!prepared) return prepared.error();
    return (*prepared)->run(values...);
  }
  // Calls each(rows) for every row.
  template <typename Each, typename... Values>
  StoreResult<void> each(std::string_view sql, Each visit, const Values&... values) {
    auto prepared = statement(sql);
    if (!prepared) return prepared.error();
    return (*prepared)->for_each(visit, values...);
  }
  // The first column of the only row.
  template <typename... Values>
  StoreResult<std::int64_t> scalar(std::string_view sql, const Values&... values) {
    auto prepared = statement(sql);
    if (!prepared) return prepared.error();
    return (*prepared)->scalar(values...);
  }
  // Everything that `task` does, or nothing.
  template <typename Task>
  auto in_transaction(Task task) -> decltype(task()) {
    auto transaction = Transaction::begin_write(connection_);
    if (!transaction) return transaction.error();
    auto result = task();
    if (!result) return result;
    if (auto committed = transaction->commit(); !committed) return committed.error();
    return result;
  }

 private:
  Connection connection_;
  const Clock& clock_;
  Random random_;
  std::map<std::string, std::unique_ptr<Statement>, std::less<>> statements_;
};

// Connections for workers: as many as work at the same time, kept for the next. Any thread.
class ControlStorePool {
 public:
  using Open = std::function<StoreResult<std::unique_ptr<ControlStore>>()>;
  explicit ControlStorePool(Open open) : open_(std::move(open)) {}

  class Lease {
   public:
    Lease(ControlStorePool& pool, std::unique_ptr<ControlStore> store)
        : pool_(&pool), store_(std::move(store)) {}
    Lease(Lease&&) noexcept = default;
    Lease& operator=(Lease&&) = delete;
    ~Lease() {
      if (store_ != nullptr) pool_->give_back(std::move(store_));
    }
    ControlStore& operator*() const noexcept { return *store_; }

   private:
    ControlStorePool* pool_;
    std::unique_ptr<ControlStore> store_;
  };
  StoreResult<Lease> take();

 private:
  void give_back(std::unique_ptr<ControlStore> store);

  const Open open_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<ControlStore>> free_;
};

// Connects to a database that open_sqlite() has made.
StoreResult<std::unique_ptr<ControlStore>> connect_control_sqlite(const std::string& path,
                                                                  const Clock& clock = system_clock());
// Connects to a database that open_postgres() has made.
StoreResult<std::unique_ptr<ControlStore>> connect_control_postgres(const std::string& url,
                                                                    std::int64_t timeout_ms,
                                                                    const Clock& clock = system_clock());

}  // namespace kavach::sink
