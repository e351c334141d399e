// BatchParser: what is taken and kept of an event, and that its passes are one parser.
#include "http/ingest/batch_parser.h"

#include "engine/ids.h"
#include "tests/http/parser_fixture.h"

#include <algorithm>
#include <map>
#include <vector>

namespace kavach::http {
namespace {

TEST_CASE_FIXTURE(ParserFixture, "every member of an event is kept, as the SDK writes it") {
  const std::string body =
      R"({"events": [{"agent_name": "research-bot", "provider": "openai", "model": "gpt-4o", )"
      R"("input_tokens": 1500, "output_tokens": 800, "cost": 0.0155, )"
      R"("timestamp": "2026-05-25T14:30:00.123456+00:00", "duration_ms": 1250, "idempotency_key": "k1", )"
      R"("run_id": "r1", "prompt": "say \"hi\"", "status": "error", "partial": true}]})";
  for (const bool is_fast : {true, false}) {
    CAPTURE(is_fast);
    const bool is_taken = is_fast ? fast(body) : slow(body);
    REQUIRE(is_taken);
    REQUIRE(batch.events.size() == 1);
    const Event& event = batch.events[0];
    CHECK(event.agent_name == "research-bot");
    CHECK(event.provider == "openai");
    CHECK(event.model == "gpt-4o");
    CHECK(event.input_tokens == 1500);
    CHECK(event.output_tokens == 800);
    CHECK(event.cost == 15'500'000);
    CHECK(event.timestamp == 1'779'719'400'123'456);
    CHECK(event.duration_ms == 1250);
    CHECK(event.idempotency_key == "k1");
    CHECK(event.run_id == "r1");
    CHECK(event.prompt == R"(say "hi")");
    CHECK(event.is_error);
    CHECK(event.partial);
  }
}

TEST_CASE_FIXTURE(ParserFixture, "what is left out has its default") {
  REQUIRE(fast(body_with()));
  const Event& event = batch.events[0];
  CHECK(event.duration_ms == 0);
  CHECK(event.idempotency_key.empty());
  CHECK(event.run_id.empty());
  CHECK(event.prompt.empty());
  CHECK_FALSE(event.is_error);
  CHECK_FALSE(event.partial);
}

TEST_CASE_FIXTURE(ParserFixture, "a time in the future becomes the present one, in both passes") {
  for (const char* text : {R"("2026-06-01T00:00:00.000001Z")", R"("9999-12-31T23:59:59Z")"}) {
    const std::string body = body_with("timestamp", text);
    REQUIRE(fast(body));
    CHECK(batch.events[0].timestamp == kNow);
    REQUIRE(slow(body));
    CHECK(batch.events[0].timestamp == kNow);
  }
  CHECK(taken(body_with("timestamp", R"("2026-05-31T23:59:59.999999Z")")).timestamp == kNow - 1);
}

TEST_CASE_FIXTURE(ParserFixture, "cost is exact to the nano-dollar where a double is not") {
  CHECK(taken(body_with("cost", "9007199.254740993")).cost == 9'007'199'254'740'993);
  CHECK(taken(body_with("cost", R"("9007199.254740993")")).cost == 9'007'199'254'740'993);
  CHECK(taken(body_with("cost", "0.0000000025")).cost == 2);
  CHECK(taken(body_with("cost", "123456789e-17")).cost == 1);
}

TEST_CASE_FIXTURE(ParserFixture, "long prompts are cut in both passes, and cuts do not disturb each other") {
  const std::string mark = "... [truncated]";
  std::string events;
  for (char c = 'a'; c <= 'z'; ++c) {
    const std::string escaped = c % 2 == 0 ? R"(\u0041)" : "A";
    events += (events.empty() ? "" : ",") + event_with("prompt", '"' + escaped + std::string(5000, c) + '"');
  }
  for (const bool is_fast : {true, false}) {
    CAPTURE(is_fast);
    const bool is_taken = is_fast ? fast(body_of(events)) : slow(body_of(events));
    REQUIRE(is_taken);
    REQUIRE(batch.events.size() == 26);
    for (char c = 'a'; c <= 'z'; ++c) {
      const Event& event = batch.events[static_cast<std::size_t>(c - 'a')];
      CHECK(event.prompt == "A" + std::string(2048 - mark.size() - 1, c) + mark);
    }
  }
}

TEST_CASE_FIXTURE(ParserFixture,
                  "whitespace, member order and unknown members do not keep a body off the fast pass") {
  CHECK(fast(" \n\t{ \"x\" : [ ] , \"events\" : [ " + event_with() + " , " + event_with() + "\n] }\r\n"));
  CHECK(batch.events.size() == 2);
  CHECK(fast(
      body_of(R"({"timestamp":"2026-05-25T14:30:00Z","cost":0,"model":"m","provider":"p","agent_name":"é\n",)"
              R"("output_tokens":0,"input_tokens":0,"y":{"z":[1,2.5,"s\u00e9",true,null]}})")));
  CHECK(batch.events[0].agent_name == "é\n");
}

TEST_CASE_FIXTURE(ParserFixture, "a parser that has seen a bad or a huge body takes the next one as ever") {
  const std::string good = body_with();
  const std::string huge = body_with("prompt", '"' + std::string(8 << 20, 'x') + '"');
  for (const std::string& before : {std::string("{"), body_with("cost", "-1"), huge, std::string(), good}) {
    parse(before);
    CHECK(taken(good).model == "m");
    CHECK(refusal.body.empty());
  }
}

// --- the passes as one parser -----------------------------------------------------------------------------

// Members that the fast pass takes. All are JSON texts.
struct Sample {
  std::string_view name;
  std::vector<std::string_view> values;
};
const std::vector<Sample> kSamples = {
    {"agent_name", {R"("research-bot")", R"("é€😀")", R"("\u00e9\n\"")"}},
    {"provider", {R"("openai")", R"("unknown")"}},
    {"model", {R"("gpt-4o")", R"("m")"}},
    {"input_tokens", {"0", "1500", "999999999999999999"}},
    {"output_tokens", {"0", "800"}},
    {"cost", {"0", "0.0155", "1e-3", "12.5", "9000000000", "0.0000000005", "123456789.1234567891"}},
    {"timestamp",
     {R"("2026-05-25T14:30:00Z")", R"("2026-05-25 14:30:00.123456789+05:30")", R"("2027-01-01T00:00Z")"}},
    {"duration_ms", {"0", "1250"}},
    {"idempotency_key", {R"("k1")", R"("k\u0031")", R"("")", "null"}},
    {"run_id", {R"("r1")", "null"}},
    {"prompt", {R"("say \"hi\"")", R"("\ud83d\ude00")", "null"}},
    {"status", {R"("success")", R"("error")", "null"}},
    {"partial", {"true", "false"}},
    {"x", {"[1,[2,{}],\"x\"]", R"({"a":1,"a":{"b":[null]}})", "-1.5e3", "\"\\/\"", "true", "{}"}},
};
// Only just right or wrong, by the member's type.
const std::vector<std::string_view> kOddValues = {
    "-0",
    "-1",
    "5.0",
    "\"5\"",
    "1E2",
    "0.1e1",
    "1e400",
    "-0.0",
    "00",
    "01",
    "1.",
    ".5",
    "+1",
    "1e",
    "-",
    "NaN",
    "tru",
    "truex",
    "nulls",
    "null",
    "1000000000000000000",
    "9223372036854775807",
    "9223372036854775808",
    "123456789012345678901234567890",
    "9000000000.000000001",
    "9000000001",
    "\"yes\"",
    "1",
    "[]",
    "{}",
    "[1,]",
    "[1 2]",
    "{\"a\"}",
    "{1:2}",
    "[",
    "\"",
    "\"\\ud800\"",
    "\"\\x\"",
    "\"\\u12\"",
    "\"a\tb\"",
    "\"\"",
    "\"\xff\"",
    "\"\xed\xa0\x80\"",
    "\"Error\"",
    "\"err\\u006fr\"",
    "\"2026-02-30T00:00:00Z\"",
    "\"2026-05-25T14:30:00\\u005a\"",
    "\"2026-05-25\"",
    "\"2026-12-31T23:59:60+00:00\"",
};
const std::vector<std::string_view> kOddNames = {"event", "model ",     "modelx",  "mod\\u0065l",
                                                 "",      "\\u0063ost", "a\\ud800"};
const std::vector<std::string_view> kSpaces = {" ", "\n", "\t \r", "  "};
const std::vector<std::string_view> kOddSpaces = {"\f", "\xc2\xa0", "\v", ",", std::string_view("\0", 1)};

// Bodies of which nearly half are plain, a few odd but valid, and the others wrong somewhere.
class BodyGenerator {
 public:
  explicit BodyGenerator(std::uint64_t seed) : random_(seed) {}

  std::string body() {
    std::string events;
    for (std::uint64_t left = one_in(30) ? 0 : 1 + below(3); left > 0; --left) {
      events += (events.empty() ? "" : ",") + space() + event() + space();
    }
    std::string out = space() + "{" + space();
    if (one_in(20)) out += R"("x":)" + value_of(kSamples.back()) + ",";
    out += R"("events")" + space() + ":" + space() + "[" + events + "]" + space();
    if (one_in(20)) out += R"(,"y":)" + value_of(kSamples.back());
    out += "}" + space();
    if (one_in(10)) spoil(out);
    return out;
  }

 private:
  std::uint64_t below(std::uint64_t end) { return random_.next() % end; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }
  template <typename T>
  const T& pick(const std::vector<T>& from) {
    return from[below(from.size())];
  }

  std::string space() {
    if (one_in(1000)) return std::string(pick(kOddSpaces));
    return one_in(8) ? std::string(pick(kSpaces)) : std::string();
  }
  std::string value_of(const Sample& sample) {
    if (one_in(60)) return std::string(pick(kOddValues));
    if (one_in(100)) return '"' + std::string(below(5000), 'x') + '"';
    return std::string(pick(sample.values));
  }

  std::string event() {
    std::vector<std::string> members;
    for (const Sample& sample : kSamples) {
      const bool required = members.size() < kRequired.size();
      if (one_in(required ? 200 : 2)) continue;
      members.push_back(named(one_in(300) ? pick(kOddNames) : sample.name, value_of(sample)));
    }
    if (one_in(30)) {
      const Sample& again = pick(kSamples);
      members.push_back(named(again.name, value_of(again)));
    }
    std::string out;
    while (!members.empty()) {
      const std::size_t next = one_in(2) ? below(members.size()) : 0;
      out += (out.empty() ? "{" : ",") + members[next];
      members.erase(members.begin() + static_cast<std::ptrdiff_t>(next));
    }
    return (out.empty() ? "{" : out) + "}";
  }
  std::string named(std::string_view name, const std::string& value) {
    return space() + '"' + std::string(name) + '"' + space() + ':' + space() + value + space();
  }

  // Breaks one place.
  void spoil(std::string& out) {
    const std::size_t at = below(out.size());
    switch (below(4)) {
      case 0:
        out.resize(at);
        break;
      case 1:
        out.erase(at, 1 + below(3));
        break;
      case 2:
        out[at] = static_cast<char>(out[at] ^ (1 << below(8)));
        break;
      default:
        out.insert(at, 1, R"(,:]}[{"\x0-e)"[below(12)]);
    }
  }

  Random random_;
};

class PassesFixture : public ParserFixture {
 public:
  enum class Taken { kByDirect, kByFast, kBySlow, kByNone };

  // Who takes the body. Checks that all passes say the same, and that the parser says what they say.
  Taken compare(const std::string& body) {
    CAPTURE(body);
    const bool by_direct = direct(body);
    const std::vector<std::string> of_direct = events();
    const bool by_fast = fast(body);
    const std::vector<std::string> of_fast = events();
    const bool by_slow = slow(body);
    const std::vector<std::string> of_slow = events();
    const Refusal of_slow_refusal = refusal;
    if (by_direct) {
      REQUIRE(by_fast);
      REQUIRE(of_direct == of_fast);
    }
    if (by_fast) {
      REQUIRE_MESSAGE(by_slow, refusal.body);
      REQUIRE(of_fast == of_slow);
    }
    REQUIRE(parse(body) == by_slow);
    if (by_slow) {
      REQUIRE(events() == of_slow);
    } else {
      REQUIRE(refusal.status == of_slow_refusal.status);
      REQUIRE(refusal.body == of_slow_refusal.body);
    }
    return by_direct ? Taken::kByDirect
           : by_fast ? Taken::kByFast
           : by_slow ? Taken::kBySlow
                     : Taken::kByNone;
  }

 private:
  std::vector<std::string> events() const {
    std::vector<std::string> out;
    for (const Event& event : batch.events) out.push_back(described(event));
    return out;
  }
};

TEST_CASE_FIXTURE(PassesFixture,
                  "what a pass takes, those behind it take alike; all else is the slow pass's word") {
  constexpr std::uint64_t kFirstSeed = 1;
  constexpr std::uint64_t kBodies = 20'000;
  std::map<Taken, std::uint64_t> count;
  for (std::uint64_t seed = kFirstSeed; seed < kFirstSeed + kBodies; ++seed) {
    CAPTURE(seed);
    ++count[compare(BodyGenerator(seed).body())];
  }
  // There were many of each kind.
  CHECK(count[Taken::kByDirect] > kBodies / 40);
  CHECK(count[Taken::kByFast] > kBodies / 6);
  CHECK(count[Taken::kBySlow] > kBodies / 50);
  CHECK(count[Taken::kByNone] > kBodies / 4);
}

TEST_CASE_FIXTURE(PassesFixture,
                  "a token inserted anywhere, or put in the place of a byte, is the same to both passes") {
  const std::string plain =
      R"({"events": [{"agent_name": "é", "model": "m", "provider": "p", "input_tokens": 12345678, )"
      R"("output_tokens": 0, "cost": 0.123456789, "duration_ms": 250, "status": "error", )"
      R"("timestamp": "2026-05-25T14:30:00.123456+00:00", "idempotency_key": "0123456789abcdef", )"
      R"("run_id": null, "partial": false, "prompt": "say hi"}, {"agent_name":"é","model":"m","provider":"p",)"
      R"("input_tokens":1,"output_tokens":2,"cost":1,"timestamp":"2026-05-25T14:30:00Z"}]})";
  REQUIRE(compare(plain) == Taken::kByDirect);
  const std::string mixed =
      R"({"x": [1,"y"], "events":[{"agent_name":"é\n","provider":"p", "model":"m","input_tokens":10,)"
      R"("output_tokens":0,"cost":1.5e-3,"timestamp":"2026-05-25T14:30:00Z","status":"error","prompt":null,)"
      R"("partial":false,"run_id":"r"}] , "z":{"a":"b"}})";
  REQUIRE(compare(mixed) == Taken::kByFast);
  for (const std::string_view token :
       {",",  ":",  "[",  "]",  "{",    "}",    "\"",       "\\",          "x",     "0",      "-",
        ".",  "e",  " ",  "\n", "\x01", "\x7f", "\xc3",     "\xff",        "\"x\"", ":\"x\"", ",\"x\"",
        ":1", ",1", ":[", "[]", "{}",   "null", "\"x\":1,", ",\"cost\":2", "}]}",   "\\\""}) {
    CAPTURE(token);
    for (const std::string& body : {plain, mixed}) {
      for (std::size_t at = 0; at <= body.size(); ++at) {
        compare(std::string(body).insert(at, token));
        if (at < body.size()) compare(std::string(body).replace(at, 1, token));
      }
    }
  }
}

TEST_CASE_FIXTURE(PassesFixture, "numbers and times of every length are the same to all passes") {
  std::vector<std::string> numbers;
  for (std::size_t whole = 1; whole <= 20; ++whole) {
    const std::string digits = std::string("98765432109876543210").substr(0, whole);
    numbers.push_back(digits);
    numbers.push_back("0" + digits);
    for (std::size_t fraction = 0; fraction <= 20; ++fraction) {
      const std::string number = digits + "." + std::string("01234567890123456789").substr(0, fraction);
      for (const char* end : {"", "e0", "E-2", "+", "-", "."}) numbers.push_back(number + end);
    }
  }
  for (const std::string& number : numbers) {
    for (const char* member : {"input_tokens", "cost", "duration_ms"}) compare(body_with(member, number));
  }
  for (const std::string date :
       {"2026-05-25", "2024-02-29", "2025-02-29", "0001-01-01", "0000-01-01", "2026-13-01"}) {
    for (const char* time : {"T14:30:59", "t14:60:00", " 23:59:60", "T24:00:00", "T14:5a:00", "T14:30",
                             "T1430:00", "T14:30:0:", "T14-30:00", "T14:30-00"}) {
      for (const char* fraction : {"", ".", ".1", ".123456", ".12345a", ".1234567", ",123456"}) {
        for (const char* zone : {"", "Z", "z", "+00:00", "-00:00", "+00:01", "+0000", "ZZ", "+00:0"}) {
          // Twice: the second time its hour is known.
          const std::string event = event_with("timestamp", '"' + date + time + fraction + zone + '"');
          compare(body_of(event + "," + event));
        }
      }
    }
  }
}

TEST_CASE_FIXTURE(PassesFixture,
                  "texts of every length, with an odd byte anywhere, are the same to all passes") {
  for (std::size_t size = 0; size <= 40; ++size) {
    for (std::size_t at = 0; at < size; ++at) {
      for (const char* odd : {"\x1f", "\x7f", "\xc3\xa9", "\xc3", "\xed\xa0\x80", "\\n", "\\", "\"", " "}) {
        const std::string text = std::string(size, 'x').replace(at, 1, odd);
        for (const char* member : {"agent_name", "prompt"}) compare(body_with(member, '"' + text + '"'));
      }
    }
  }
  for (const std::size_t chars : {63, 64, 65, 254, 255, 256}) {
    std::string wide;
    for (std::size_t i = 0; i < chars; ++i) wide += "é";
    for (const char* member : {"agent_name", "provider", "model", "idempotency_key", "run_id"}) {
      compare(body_with(member, '"' + std::string(chars, 'x') + '"'));
      compare(body_with(member, '"' + wide + '"'));
    }
  }
}

TEST_CASE_FIXTURE(ParserFixture, "a body that goes on behind its end is cut there, to the direct pass too") {
  const std::string body = body_of(event_with("prompt", R"("1234567890")") + ", " + event_with());
  REQUIRE(direct(body));
  for (std::size_t end = 0; end < body.size(); ++end) {
    CAPTURE(end);
    CHECK_FALSE(direct(body.substr(0, end), body.substr(end)));
  }
}

TEST_CASE_FIXTURE(ParserFixture, "the direct pass takes any order of members, whatever order it saw before") {
  std::vector<std::string> members;
  for (const auto& [name, value] : kRequired) members.push_back(fmt::format(R"("{}": {})", name, value));
  for (std::size_t turn = 0; turn < members.size(); ++turn) {
    std::rotate(members.begin(), members.begin() + 1, members.end());
    REQUIRE(direct(body_of(fmt::format("{{{}}}", fmt::join(members, ", ")))));
    CHECK(described(batch.events[0]) == described(taken(body_with())));
  }
}

TEST_CASE_FIXTURE(ParserFixture, "the direct pass takes as many events as the limit says") {
  parser.set_limits({.batch_events_max = 2});
  CHECK(direct(body_of(event_with() + "," + event_with())));
  CHECK_FALSE(direct(body_of(event_with() + "," + event_with() + "," + event_with())));
  CHECK_FALSE(direct(body_of("")));
}

// simdjson takes a string that was left unread, with a colon behind it, for a key, and passes over what
// follows up to the end of an object.
TEST_CASE_FIXTURE(ParserFixture, "a colon behind a string value is bad JSON in every place, to both passes") {
  for (const std::string& field :
       std::vector<std::string>{"agent_name", "provider", "model", "timestamp", "idempotency_key", "run_id",
                                "prompt", "status", "unknown"}) {
    CAPTURE(field);
    const std::string value = field == "timestamp" ? R"("2026-05-25T14:30:00Z")" : R"("success")";
    CHECK(fast(body_with(field, value)));
    for (const std::string& behind :
         std::vector<std::string>{":1}", R"(:"x"})", R"(:[{"y"}]})", ":1,2}", ":}"}) {
      CAPTURE(behind);
      CHECK_FALSE(fast(body_with(field, value + behind)));
      CHECK(errors(body_with(field, value + behind)).find("\"json_invalid\"") != std::string::npos);
    }
  }
  CHECK_FALSE(fast(body_with("unknown", R"(["a":1]])")));
  CHECK_FALSE(fast(R"({"unknown":"a":1},"events":[)" + event_with() + "]}"));
}

}  // namespace
}  // namespace kavach::http
