// disk_faults: a disk that is slow, stuck, broken or full on command, for one process (LD_PRELOAD).
//
// KAVACH_TEST_FAULTS names a file of rules, one a line: `CALL PATH_PART ACTION`, for example
//   fdatasync /journal/ hold        waits until the rule is gone
//   fdatasync /journal/ errno=5     fails with EIO, without doing anything
//   pwrite    kavach.db errno=28    the disk is full
// It is read anew at every call, so a test changes it while the process runs. A rule that was applied is
// noted in the same file with `.hits` behind its name. PATH_PART is looked for in the path of the descriptor.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { kRulesBytesMax = 4096, kWordBytesMax = 256, kPollMs = 2 };

static void note_hit(const char* rules_path, const char* call, const char* path, const char* action) {
  char name[PATH_MAX];
  char line[PATH_MAX + kWordBytesMax];
  snprintf(name, sizeof(name), "%s.hits", rules_path);
  const int length = snprintf(line, sizeof(line), "%s %s %s\n", call, path, action);
  const int fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return;
  if (write(fd, line, (size_t)length) != length) abort();
  close(fd);
}

// The action of the first rule for this call on this path; 0 when there is none.
static int find_action(const char* rules_path, const char* call, const char* path, char* action) {
  char rules[kRulesBytesMax];
  const int fd = open(rules_path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  const ssize_t size = read(fd, rules, sizeof(rules) - 1);
  close(fd);
  rules[size > 0 ? size : 0] = '\0';
  char* rest = NULL;
  for (char* line = strtok_r(rules, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
    char rule_call[kWordBytesMax];
    char part[kWordBytesMax];
    if (sscanf(line, "%255s %255s %255s", rule_call, part, action) != 3) abort();
    if (strcmp(rule_call, call) == 0 && strstr(path, part) != NULL) return 1;
  }
  return 0;
}

// What the rules say about this call: 0 when it may go on, else the error number that it fails with.
static int fault_of(const char* call, int fd) {
  const char* rules_path = getenv("KAVACH_TEST_FAULTS");
  if (rules_path == NULL) return 0;
  const int errno_before = errno;
  char link[64];
  char path[PATH_MAX];
  char action[kWordBytesMax];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, path, sizeof(path) - 1);
  path[length > 0 ? length : 0] = '\0';

  int error = 0;
  int noted = 0;
  while (find_action(rules_path, call, path, action)) {
    if (!noted) note_hit(rules_path, call, path, action);
    noted = 1;
    if (sscanf(action, "errno=%d", &error) == 1) break;
    if (strcmp(action, "hold") != 0) abort();
    const struct timespec pause = {0, kPollMs * 1000000L};
    nanosleep(&pause, NULL);
  }
  errno = errno_before;
  return error;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAULTY(name, rule, fd, call)      \
  const int error = fault_of(rule, fd);   \
  if (error == 0) return REAL(name) call; \
  errno = error;                          \
  return -1

int fsync(int fd) {
  FAULTY(fsync, "fsync", fd, (fd));
}
int fdatasync(int fd) {
  FAULTY(fdatasync, "fdatasync", fd, (fd));
}
int ftruncate(int fd, off_t size) {
  FAULTY(ftruncate, "ftruncate", fd, (fd, size));
}
ssize_t pwrite(int fd, const void* bytes, size_t size, off_t offset) {
  FAULTY(pwrite, "pwrite", fd, (fd, bytes, size, offset));
}
ssize_t pwrite64(int fd, const void* bytes, size_t size, off64_t offset) {
  FAULTY(pwrite64, "pwrite", fd, (fd, bytes, size, offset));
}
ssize_t pwritev(int fd, const struct iovec* parts, int count, off_t offset) {
  FAULTY(pwritev, "pwritev", fd, (fd, parts, count, offset));
}
