// PaddedBuffer: content survives growing, padding is always there, and the pool keeps large buffers only
// while they are used.
#include "engine/padded_buffer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <utility>

namespace kavach {
namespace {

bool padding_is_zero(const PaddedBuffer& buffer) {
  const char* const padding = buffer.data() + buffer.capacity();
  return std::all_of(padding, padding + bounds::kBodyPadding, [](char byte) { return byte == 0; });
}

TEST_CASE("what is appended is there, in order, however often the buffer grows") {
  PaddedBuffer buffer;
  CHECK(buffer.view().empty());
  std::string expected;
  for (int i = 0; i < 1000; ++i) {
    const std::string part(static_cast<std::size_t>(i % 7), static_cast<char>('a' + i % 26));
    buffer.append(part);
    expected += part;
    REQUIRE(buffer.view() == expected);
    if (buffer.capacity() > 0) REQUIRE(padding_is_zero(buffer));
  }
  buffer.append(std::string(10'000, 'x'));
  CHECK(buffer.view() == expected + std::string(10'000, 'x'));
  CHECK(padding_is_zero(buffer));
}

TEST_CASE("reserve keeps the content and never shrinks") {
  PaddedBuffer buffer(16);
  buffer.append("0123456789");
  buffer.reserve(8);
  CHECK(buffer.capacity() == 16);
  buffer.reserve(100'000);
  CHECK(buffer.capacity() == 100'000);
  CHECK(buffer.view() == "0123456789");
  CHECK(padding_is_zero(buffer));
}

TEST_CASE("appending within the capacity does not move the bytes") {
  PaddedBuffer buffer(100);
  const char* const bytes = buffer.data();
  buffer.append(std::string(60, 'a'));
  buffer.append(std::string(40, 'b'));
  CHECK(buffer.data() == bytes);
  CHECK(buffer.size() == 100);
}

TEST_CASE("consume takes from the front") {
  PaddedBuffer buffer(8);
  buffer.append("abcdef");
  buffer.consume(0);
  CHECK(buffer.view() == "abcdef");
  buffer.consume(4);
  CHECK(buffer.view() == "ef");
  buffer.append("gh");
  CHECK(buffer.view() == "efgh");
  buffer.consume(4);
  CHECK(buffer.view().empty());
}

TEST_CASE("a moved-from buffer is empty and usable, also after moving to itself") {
  PaddedBuffer from(8);
  from.append("abc");
  PaddedBuffer to(std::move(from));
  CHECK(to.view() == "abc");
  CHECK(from.capacity() == 0);  // NOLINT(bugprone-use-after-move): that is the claim
  from.append("again");
  CHECK(from.view() == "again");
  to = std::move(from);
  CHECK(to.view() == "again");
  PaddedBuffer& same = to;
  to = std::move(same);
  CHECK(to.view() == "again");
}

TEST_CASE("the pool gives the buffer back that came last, empty") {
  BufferPool pool(64, 2, 0);
  PaddedBuffer first = pool.take();
  PaddedBuffer second = pool.take();
  CHECK(first.capacity() == 64);
  second.append("rest of another request");
  const char* const warm = second.data();
  pool.give(std::move(first));
  pool.give(std::move(second));
  const PaddedBuffer again = pool.take();
  CHECK(again.data() == warm);
  CHECK(again.size() == 0);
}

TEST_CASE("the pool keeps neither what has another size nor more than it may") {
  BufferPool pool(64, 1, 0);
  PaddedBuffer grown = pool.take();
  grown.reserve(65);
  pool.give(std::move(grown));
  CHECK(pool.take().capacity() == 64);
  pool.give(PaddedBuffer());
  CHECK(pool.take().capacity() == 64);

  // One of chunks is as large as its content was.
  pool.give(PaddedBuffer(63));
  CHECK(pool.take().capacity() == 64);
}

TEST_CASE("the pool lends a large buffer to who needs about as much, the one that came last first") {
  BufferPool pool(64, 1, 10'000);
  for (const std::size_t capacity : {1000, 3000, 2000}) pool.give(PaddedBuffer(capacity));
  CHECK(pool.take_large(5000).capacity() == 0);
  CHECK(pool.take_large(400).capacity() == 1000);
  CHECK(pool.take_large(400).capacity() == 0);
  CHECK(pool.take_large(1500).capacity() == 2000);
  PaddedBuffer used = pool.take_large(1500);
  CHECK(used.capacity() == 3000);
  used.append("rest of another request");
  pool.give(std::move(used));
  CHECK(pool.take_large(1500).size() == 0);
}

TEST_CASE("the pool keeps no more large buffers than it may, together") {
  BufferPool pool(64, 1, 2500);
  for (int i = 0; i < 3; ++i) pool.give(PaddedBuffer(1000));
  PaddedBuffer first = pool.take_large(1000);
  CHECK(first.capacity() == 1000);
  CHECK(pool.take_large(1000).capacity() == 1000);
  CHECK(pool.take_large(1000).capacity() == 0);
  pool.give(PaddedBuffer(2501));
  CHECK(pool.take_large(2501).capacity() == 0);
  pool.give(std::move(first));
  CHECK(pool.take_large(1000).capacity() == 1000);
}

TEST_CASE("large buffers that nobody has needed for a while are freed, and the others stay") {
  BufferPool pool(64, 1, 10'000);
  pool.give(PaddedBuffer(1000));
  pool.give(PaddedBuffer(1001));
  pool.give(PaddedBuffer(1002));
  pool.free_unused();  // they have just come
  pool.give(pool.take_large(1001));
  pool.free_unused();
  CHECK(pool.take_large(500).capacity() == 1002);
  CHECK(pool.take_large(500).capacity() == 0);
  pool.give(PaddedBuffer(1000));
  pool.free_unused();
  pool.free_unused();
  CHECK(pool.take_large(500).capacity() == 0);
}

}  // namespace
}  // namespace kavach
