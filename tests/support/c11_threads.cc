// C11's threads, mutexes and conditions as POSIX ones, for builds with ThreadSanitizer only.
//
// It knows the functions of POSIX and not those of <threads.h>, which librdkafka uses: a thread that began
// there has no state of the sanitizer's and crashes in the first call that is watched, and what such a mutex
// guards would look like a race. The shared library finds these here before those of libc, whose types are
// the same in memory.
#include <errno.h>
#include <pthread.h>
#include <threads.h>

#include <cstdint>

namespace {

static_assert(sizeof(mtx_t) >= sizeof(pthread_mutex_t));
static_assert(sizeof(cnd_t) >= sizeof(pthread_cond_t));

pthread_mutex_t* posix(mtx_t* mutex) {
  return reinterpret_cast<pthread_mutex_t*>(mutex);
}
pthread_cond_t* posix(cnd_t* condition) {
  return reinterpret_cast<pthread_cond_t*>(condition);
}

int code_of(int error) {
  if (error == 0) return thrd_success;
  if (error == ETIMEDOUT) return thrd_timedout;
  if (error == EBUSY) return thrd_busy;
  return error == ENOMEM ? thrd_nomem : thrd_error;
}

struct Start {
  thrd_start_t function;
  void* argument;
};

void* run(void* opaque) {
  const Start start = *static_cast<Start*>(opaque);
  delete static_cast<Start*>(opaque);
  return reinterpret_cast<void*>(static_cast<std::intptr_t>(start.function(start.argument)));
}

}  // namespace

extern "C" {

// The library's reference counts are atomics that the sanitizer does not see: every free() of what was shared
// looks like a race. The price: a race of ours within one of its callbacks is not told either.
const char* __tsan_default_suppressions();
const char* __tsan_default_suppressions() {
  return "race:librdkafka.so\n";
}

int thrd_create(thrd_t* thread, thrd_start_t function, void* argument) {
  auto* const start = new Start{function, argument};
  const int error = pthread_create(thread, nullptr, run, start);
  if (error != 0) delete start;
  return code_of(error);
}

int thrd_join(thrd_t thread, int* result) {
  void* value = nullptr;
  const int error = pthread_join(thread, &value);
  if (result != nullptr) *result = static_cast<int>(reinterpret_cast<std::intptr_t>(value));
  return code_of(error);
}

int mtx_init(mtx_t* mutex, int type) noexcept {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  if ((type & mtx_recursive) != 0) pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
  const int error = pthread_mutex_init(posix(mutex), &attributes);
  pthread_mutexattr_destroy(&attributes);
  return code_of(error);
}
void mtx_destroy(mtx_t* mutex) noexcept {
  pthread_mutex_destroy(posix(mutex));
}
int mtx_lock(mtx_t* mutex) {
  return code_of(pthread_mutex_lock(posix(mutex)));
}
int mtx_trylock(mtx_t* mutex) noexcept {
  return code_of(pthread_mutex_trylock(posix(mutex)));
}
int mtx_unlock(mtx_t* mutex) noexcept {
  return code_of(pthread_mutex_unlock(posix(mutex)));
}

int cnd_init(cnd_t* condition) noexcept {
  return code_of(pthread_cond_init(posix(condition), nullptr));
}
void cnd_destroy(cnd_t* condition) noexcept {
  pthread_cond_destroy(posix(condition));
}
int cnd_signal(cnd_t* condition) noexcept {
  return code_of(pthread_cond_signal(posix(condition)));
}
int cnd_broadcast(cnd_t* condition) noexcept {
  return code_of(pthread_cond_broadcast(posix(condition)));
}
int cnd_wait(cnd_t* condition, mtx_t* mutex) {
  return code_of(pthread_cond_wait(posix(condition), posix(mutex)));
}
int cnd_timedwait(cnd_t* condition, mtx_t* mutex, const timespec* until) {
  return code_of(pthread_cond_timedwait(posix(condition), posix(mutex), until));
}

}  // extern "C"
