// WorkerPool: tasks in order, a queue with an end, and a stop that loses nothing.
#include "engine/worker_pool.h"

#include <doctest/doctest.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <string>
#include <thread>
#include <vector>

namespace kavach {
namespace {

// A pool of one thread that is kept busy until released.
struct BusyPool {
  explicit BusyPool(std::size_t queue_max) : pool({.threads = 1, .queue_max = queue_max}) {
    CHECK(pool.post([this] {
      started.set_value();
      release.get_future().wait();
    }));
    started.get_future().wait();
  }
  std::promise<void> started;
  std::promise<void> release;
  WorkerPool pool;
};

TEST_CASE("one thread runs tasks in the order in which they were posted") {
  std::vector<int> ran;
  WorkerPool pool({.threads = 1, .queue_max = 4});
  for (int i = 0; i < 100; ++i) CHECK(pool.post([&ran, i] { ran.push_back(i); }));
  pool.stop();
  REQUIRE(ran.size() == 100);
  for (int i = 0; i < 100; ++i) CHECK(ran[static_cast<std::size_t>(i)] == i);
}

TEST_CASE("a full queue refuses at once and takes again when there is room") {
  BusyPool busy(2);
  std::atomic<int> ran{0};
  const auto task = [&ran] { ++ran; };
  CHECK(busy.pool.try_post(task));
  CHECK(busy.pool.try_post(task));
  CHECK(busy.pool.queued() == 2);
  CHECK_FALSE(busy.pool.try_post(task));
  CHECK(busy.pool.queued() == 2);
  busy.release.set_value();
  CHECK(busy.pool.post(task));
  busy.pool.stop();
  CHECK(ran == 3);
}

TEST_CASE("post waits for room") {
  BusyPool busy(1);
  std::atomic<int> ran{0};
  CHECK(busy.pool.post([&ran] { ++ran; }));
  std::thread waiting([&] { CHECK(busy.pool.post([&ran] { ++ran; })); });
  busy.release.set_value();
  waiting.join();
  busy.pool.stop();
  CHECK(ran == 2);
}

TEST_CASE("stop runs what waits, sends away who waits for room, and refuses what comes after") {
  BusyPool busy(1);
  std::atomic<int> ran{0};
  CHECK(busy.pool.post([&ran] { ++ran; }));
  std::promise<bool> taken;
  std::thread waiting([&] { taken.set_value(busy.pool.post([&ran] { ++ran; })); });
  std::thread stopping([&] { busy.pool.stop(); });
  // Only stop() can end this wait: the one worker is still busy and the queue full.
  CHECK_FALSE(taken.get_future().get());
  busy.release.set_value();
  waiting.join();
  stopping.join();
  CHECK(ran == 1);
  CHECK_FALSE(busy.pool.post([] {}));
  CHECK_FALSE(busy.pool.try_post([] {}));
  busy.pool.stop();
}

TEST_CASE("the destructor runs what waits") {
  std::atomic<int> ran{0};
  {
    WorkerPool pool({.threads = 2, .queue_max = 1000});
    for (int i = 0; i < 1000; ++i) CHECK(pool.try_post([&ran] { ++ran; }));
  }
  CHECK(ran == 1000);
}

TEST_CASE("threads run at the same time, and each bears the pool's name") {
  WorkerPool pool({.name = "sql", .threads = 2});
  std::promise<void> first_runs;
  std::promise<std::string> name;
  CHECK(pool.post([&] { first_runs.get_future().wait(); }));
  // Runs only if another thread does not wait for the first one.
  CHECK(pool.post([&] {
    char text[16] = {};
    pthread_getname_np(pthread_self(), text, sizeof text);
    name.set_value(text);
    first_runs.set_value();
  }));
  const std::string found = name.get_future().get();
  CHECK((found == "sql-0" || found == "sql-1"));
  pool.stop();
}

TEST_CASE("threads stand back as far as they are told, and nobody else does") {
  WorkerPool pool({.threads = 1, .nice = 7});
  std::promise<int> of_worker;
  CHECK(pool.post([&] { of_worker.set_value(getpriority(PRIO_PROCESS, static_cast<id_t>(gettid()))); }));
  const int own = getpriority(PRIO_PROCESS, static_cast<id_t>(gettid()));
  CHECK(of_worker.get_future().get() == 7);
  CHECK(getpriority(PRIO_PROCESS, static_cast<id_t>(gettid())) == own);
}

TEST_CASE("threads that stand back all the way are of the idle class") {
  const auto scheduler_of = [](int nice) {
    WorkerPool pool({.threads = 1, .nice = nice});
    std::promise<int> scheduler;
    CHECK(pool.post([&] { scheduler.set_value(sched_getscheduler(gettid())); }));
    return scheduler.get_future().get();
  };
  CHECK(scheduler_of(19) == SCHED_IDLE);
  CHECK(scheduler_of(18) == SCHED_OTHER);
}

TEST_CASE("what many threads post is run once each") {
  constexpr std::size_t kThreads = 4;
  constexpr std::size_t kTasks = 5'000;
  std::vector<std::atomic<int>> ran(kThreads * kTasks);
  WorkerPool pool({.threads = 3, .queue_max = 16});
  std::vector<std::thread> posting;
  for (std::size_t t = 0; t < kThreads; ++t) {
    posting.emplace_back([&, t] {
      for (std::size_t i = 0; i < kTasks; ++i) pool.post([&one = ran[t * kTasks + i]] { ++one; });
    });
  }
  for (std::thread& thread : posting) thread.join();
  pool.stop();
  CHECK(std::all_of(ran.begin(), ran.end(), [](const auto& count) { return count == 1; }));
}

}  // namespace
}  // namespace kavach
