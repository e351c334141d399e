#include "sink/store/control/control_store.h"

#include "sink/store/postgres/session.h"

namespace kavach::sink {

StoreResult<Statement*> ControlStore::statement(std::string_view sql) {
  const auto found = statements_.find(sql);
  if (found != statements_.end()) return found->second.get();
  auto prepared = connection_.prepare(sql);
  if (!prepared) return prepared.error();
  return statements_.emplace(sql, std::make_unique<Statement>(std::move(*prepared))).first->second.get();
}

StoreResult<ControlStorePool::Lease> ControlStorePool::take() {
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      auto store = std::move(free_.back());
      free_.pop_back();
      return Lease(*this, std::move(store));
    }
  }
  auto opened = open_();
  if (!opened) return opened.error();
  return Lease(*this, std::move(*opened));
}

void ControlStorePool::give_back(std::unique_ptr<ControlStore> store) {
  const std::lock_guard lock(mutex_);
  free_.push_back(std::move(store));
}

StoreResult<std::unique_ptr<ControlStore>> connect_control_sqlite(const std::string& path,
                                                                  const Clock& clock) {
  auto connection = connect_sqlite(path);
  if (!connection) return connection.error();
  return std::make_unique<ControlStore>(std::move(*connection), clock);
}

StoreResult<std::unique_ptr<ControlStore>> connect_control_postgres(const std::string& url,
                                                                    std::int64_t timeout_ms,
                                                                    const Clock& clock) {
  auto session = connect_postgres(url, timeout_ms);
  if (!session) return session.error();
  return std::make_unique<ControlStore>(Connection(std::move(*session)), clock);
}

}  // namespace kavach::sink
