// 422: the bodies of contract section 9, byte for byte, and every way in which a field can be wrong.
//
// The same and many more bodies are held against FastAPI and Pydantic in tests/clients/fastapi_reference.
#include "http/ingest/validate.h"

#include "tests/http/parser_fixture.h"

#include <vector>

namespace kavach::http {
namespace {

constexpr std::string_view kUnreadable = R"(400 {"detail":"There was an error parsing the body"})";

// One error at a member of the first event.
std::string error_at(std::string_view field, std::string_view type, std::string_view msg,
                     std::string_view input, std::string_view ctx = {}) {
  return fmt::format(R"({{"type":"{}","loc":["body","events",0,"{}"],"msg":"{}","input":{}{}{}}})", type,
                     field, msg, input, ctx.empty() ? "" : R"(,"ctx":)", ctx);
}

TEST_CASE_FIXTURE(ParserFixture, "9.1: a missing member echoes its parent") {
  CHECK(
      refused(
          R"({"events":[{"agent_name":"a","provider":"openai","input_tokens":1,"output_tokens":1,"cost":0.1,)"
          R"("timestamp":"2026-05-25T14:30:00Z"}]})") ==
      R"(422 {"detail":[{"type":"missing","loc":["body","events",0,"model"],"msg":"Field required",)"
      R"("input":{"agent_name":"a","provider":"openai","input_tokens":1,"output_tokens":1,"cost":0.1,)"
      R"("timestamp":"2026-05-25T14:30:00Z"}}]})");
  CHECK(errors(R"({"event": [ ]})") ==
        R"({"type":"missing","loc":["body","events"],"msg":"Field required","input":{"event":[]}})");
  CHECK(errors("") == R"({"type":"missing","loc":["body"],"msg":"Field required","input":null})");
  CHECK(errors("", false) == errors(""));
}

TEST_CASE_FIXTURE(ParserFixture, "9.1: each required member must be there, and no other") {
  for (const auto& [name, value] : kRequired) {
    const std::string member = fmt::format(R"("{}":{})", name, value);
    std::string event = event_with();
    const std::size_t at = event.find(member);
    event.erase(name == kRequired.back().first ? at - 1 : at, member.size() + 1);
    CHECK(errors(body_of(event)) == error_at(name, "missing", "Field required", event));
  }
  CHECK(parse(body_with()));
}

TEST_CASE_FIXTURE(ParserFixture, "9.2: a wrong type") {
  const auto check = [&](std::string_view field, std::string_view value, std::string_view type,
                         std::string_view msg) {
    CAPTURE(field);
    CAPTURE(value);
    CHECK(errors(body_with(field, value)) == error_at(field, type, msg, value));
  };
  for (const char* field : {"input_tokens", "output_tokens", "duration_ms"}) {
    check(field, R"("abc")", "int_parsing",
          "Input should be a valid integer, unable to parse string as an integer");
    check(field, "1.5", "int_from_float",
          "Input should be a valid integer, got a number with a fractional part");
    for (const char* value : {"null", "[]", "{}"})
      check(field, value, "int_type", "Input should be a valid integer");
  }
  check("cost", R"("x")", "float_parsing",
        "Input should be a valid number, unable to parse string as a number");
  for (const char* value : {"null", "[]", "{}"})
    check("cost", value, "float_type", "Input should be a valid number");
  for (const char* field :
       {"agent_name", "provider", "model", "timestamp", "idempotency_key", "run_id", "prompt"}) {
    for (const char* value : {"5", "0.5", "true", "[]", "{}"}) {
      check(field, value, "string_type", "Input should be a valid string");
    }
  }
  for (const char* field : {"agent_name", "provider", "model", "timestamp"}) {
    check(field, "null", "string_type", "Input should be a valid string");
  }
  for (const char* value : {"[]", "{}", "null", "0.5"}) {
    check("partial", value, "bool_type", "Input should be a valid boolean");
  }
  for (const char* value : {"2", "-1", R"("maybe")"}) {
    check("partial", value, "bool_parsing", "Input should be a valid boolean, unable to interpret input");
  }
}

TEST_CASE_FIXTURE(ParserFixture, "9.2: another value in the place of the list, an event or the body") {
  CHECK(errors(R"({"events":{}})") ==
        R"({"type":"list_type","loc":["body","events"],"msg":"Input should be a valid list","input":{}})");
  CHECK(errors(R"({"events":[3]})") ==
        R"({"type":"model_attributes_type","loc":["body","events",0],)"
        R"("msg":"Input should be a valid dictionary or object to extract fields from","input":3})");
  for (const char* value : {"[]", "3", "null", "true", "0.5", R"("x")"}) {
    CAPTURE(value);
    CHECK(errors(value) ==
          fmt::format(
              R"({{"type":"model_attributes_type","loc":["body"],)"
              R"("msg":"Input should be a valid dictionary or object to extract fields from","input":{}}})",
              value));
  }
}

TEST_CASE_FIXTURE(ParserFixture, "9.2: what is not sent as JSON is not parsed but echoed as text") {
  CHECK(
      errors(R"({"events":"é"})", false) ==
      R"({"type":"model_attributes_type","loc":["body"],)"
      R"("msg":"Input should be a valid dictionary or object to extract fields from","input":"{\"events\":\"é\"}"})");
  CHECK(errors("\xff", false) ==
        R"({"type":"model_attributes_type","loc":["body"],)"
        R"("msg":"Input should be a valid dictionary or object to extract fields from","input":null})");
}

TEST_CASE_FIXTURE(ParserFixture, "9.2: lax conversions are no errors, and a number is never a string") {
  CHECK(taken(body_with("input_tokens", R"("123")")).input_tokens == 123);
  CHECK(taken(body_with("input_tokens", "5.0")).input_tokens == 5);
  CHECK(taken(body_with("input_tokens", R"("5.0")")).input_tokens == 5);
  CHECK(taken(body_with("input_tokens", R"(" +1_000 ")")).input_tokens == 1000);
  CHECK(taken(body_with("input_tokens", "true")).input_tokens == 1);
  CHECK(taken(body_with("input_tokens", "1e3")).input_tokens == 1000);
  CHECK(taken(body_with("input_tokens", "-0")).input_tokens == 0);
  CHECK(taken(body_with("input_tokens", "-0.0")).input_tokens == 0);
  CHECK(taken(body_with("cost", R"("0.5")")).cost == 500'000'000);
  CHECK(taken(body_with("cost", "3")).cost == 3 * kNanoPerDollar);
  CHECK(taken(body_with("cost", "-0")).cost == 0);
  CHECK(taken(body_with("cost", "-0.0")).cost == 0);
  CHECK(taken(body_with("cost", "1e-400")).cost == 0);
  CHECK(taken(body_with("cost", "true")).cost == kNanoPerDollar);
  for (const char* yes : {"true", "1", "1.0", R"("true")", R"("YES")", R"("on")", R"("t")", R"("1")"}) {
    CHECK(taken(body_with("partial", yes)).partial);
  }
  for (const char* no : {"false", "0", "-0.0", R"("False")", R"("no")", R"("off")", R"("f")", R"("0")"}) {
    CHECK_FALSE(taken(body_with("partial", no)).partial);
  }
}

TEST_CASE_FIXTURE(ParserFixture, "9.3: a negative number, an overflow and what is no number") {
  constexpr std::string_view kNegative = "Input should be greater than or equal to 0";
  for (const char* field : {"input_tokens", "output_tokens", "duration_ms"}) {
    CHECK(errors(body_with(field, "-5")) ==
          error_at(field, "greater_than_equal", kNegative, "-5", R"({"ge":0})"));
    CHECK(errors(body_with(field, "-5.0")) ==
          error_at(field, "greater_than_equal", kNegative, "-5.0", R"({"ge":0})"));
    CHECK(errors(body_with(field, "-9223372036854775809")) ==
          error_at(field, "greater_than_equal", kNegative, "-9223372036854775809", R"({"ge":0})"));
  }
  CHECK(errors(body_with("cost", "-0.1")) ==
        error_at("cost", "greater_than_equal", kNegative, "-0.1", R"({"ge":0.0})"));
  for (const char* value : {"1e400", "-1e400", "1e99999999999999999999", R"("inf")", R"("nan")"}) {
    CHECK(errors(body_with("cost", value)) ==
          error_at("cost", "finite_number", "Input should be a finite number", value));
  }
  CHECK(errors(body_with("input_tokens", "1e400")) ==
        error_at("input_tokens", "finite_number", "Input should be a finite number", "1e400"));
}

TEST_CASE_FIXTURE(ParserFixture, "9.3: numbers beyond what is kept") {
  CHECK(taken(body_with("input_tokens", "9223372036854775807")).input_tokens == INT64_MAX);
  constexpr std::string_view kMax = "Input should be less than or equal to 9223372036854775807";
  for (const char* value :
       {"9223372036854775808", "18446744073709551616", "100000000000000000000000000000"}) {
    CHECK(errors(body_with("input_tokens", value)) ==
          error_at("input_tokens", "less_than_equal", kMax, value, R"({"le":9223372036854775807})"));
  }
  CHECK(errors(body_with("input_tokens", "1e19")) ==
        error_at("input_tokens", "int_parsing_size",
                 "Unable to parse input string as an integer, exceeded maximum size", "1e+19"));
  CHECK(taken(body_with("cost", "9000000000")).cost == 9'000'000'000 * kNanoPerDollar);
  CHECK(errors(body_with("cost", "9000000001")) ==
        error_at("cost", "less_than_equal", "Input should be less than or equal to 9000000000", "9000000001",
                 R"({"le":9000000000.0})"));
  // An integer that json.loads does not convert at all.
  CHECK(refused(body_with("input_tokens", std::string(4301, '9'))) == kUnreadable);
}

TEST_CASE_FIXTURE(ParserFixture, "9.4: bad JSON is told with the character at which it goes wrong") {
  CHECK(refused(R"({"events": [{"agent_name": "a", "model": "é1" 5}]})") ==
        R"(422 {"detail":[{"type":"json_invalid","loc":["body",46],"msg":"JSON decode error","input":{},)"
        R"("ctx":{"error":"Expecting ',' delimiter"}}]})");
  const auto fault = [&](std::string_view body) {
    const std::string found = errors(body);
    constexpr std::string_view kHead = R"({"type":"json_invalid","loc":["body",)";
    constexpr std::string_view kMiddle = R"(],"msg":"JSON decode error","input":{},"ctx":{"error":")";
    REQUIRE_MESSAGE(found.starts_with(kHead), found);
    const std::size_t middle = found.find(kMiddle);
    REQUIRE_MESSAGE(middle != std::string::npos, found);
    const std::size_t message = middle + kMiddle.size();
    return found.substr(kHead.size(), middle - kHead.size()) + " " +
           found.substr(message, found.size() - message - 3);
  };
  CHECK(fault(" ") == "1 Expecting value");
  CHECK(fault("{") == "1 Expecting property name enclosed in double quotes");
  CHECK(fault(R"({"events":[]]})") == "12 Expecting ',' delimiter");
  CHECK(fault(R"({"events" [])") == "10 Expecting ':' delimiter");
  CHECK(fault(R"({"events":[)") == "11 Expecting value");
  CHECK(fault(R"({"events":[],})") == "13 Expecting property name enclosed in double quotes");
  CHECK(fault(body_with() + "x") == fmt::format("{} Extra data", body_with().size()));
  CHECK(fault(R"({"événements)") == "1 Unterminated string starting at");
  CHECK(fault("{\"a\nb\":1}") == "3 Invalid control character at");
  CHECK(fault(R"({"é\x":1})") == R"(3 Invalid \\escape)");
  CHECK(fault(R"({"a":"\u12x4567"})") == R"(7 Invalid \\uXXXX escape)");
  for (const char* token : {"NaN", "Infinity", "-Infinity"}) {
    const std::string body = body_with("cost", token);
    CHECK(fault(body) == fmt::format("{} Expecting value", body.rfind(token)));
  }
}

TEST_CASE_FIXTURE(ParserFixture, "9.4: every valid body cut off anywhere is bad JSON") {
  const std::string body =
      body_with("prompt", R"("é\n","status":"error","partial":false,"x":[1,{"y":null}])");
  for (std::size_t size = 1; size < body.size(); ++size) {
    CAPTURE(size);
    // Cut inside of the é, the body is no text.
    const bool is_text = (static_cast<unsigned char>(body[size]) & 0xC0) != 0x80;
    CHECK(errors(body.substr(0, size)).starts_with(is_text ? R"({"type":"json_invalid")" : kUnreadable));
  }
}

TEST_CASE_FIXTURE(ParserFixture,
                  "9.5 and 9.6: 1 to 1000 events, and a list of another size is not looked into") {
  const auto many = [](std::size_t count, std::string_view event) {
    std::string events;
    for (std::size_t i = 0; i < count; ++i) (events += i > 0 ? "," : "") += event;
    return body_of(events);
  };
  const std::string good = event_with();
  CHECK(errors(many(0, good)) ==
        R"({"type":"too_short","loc":["body","events"],)"
        R"("msg":"List should have at least 1 item after validation, not 0","input":[],)"
        R"("ctx":{"field_type":"List","min_length":1,"actual_length":0}})");
  CHECK(parse(many(1, good)));
  CHECK(parse(many(1000, good)));
  CHECK(batch.events.size() == 1000);
  for (const std::string_view event : {std::string_view(good), std::string_view("3")}) {
    CHECK(errors(many(1001, event)) ==
          R"({"type":"too_long","loc":["body","events"],)"
          R"("msg":"List should have at most 1000 items after validation, not 1001","input":[],)"
          R"("ctx":{"field_type":"List","max_length":1000,"actual_length":1001}})");
  }
  parser.set_limits({.batch_events_max = 1});
  CHECK(errors(many(2, good)).find("List should have at most 1 item after validation, not 2") !=
        std::string::npos);
}

TEST_CASE_FIXTURE(ParserFixture, "9.7: a status is one of two words, or null") {
  CHECK_FALSE(taken(body_with("status", "null")).is_error);
  CHECK_FALSE(taken(body_with("status", R"("success")")).is_error);
  CHECK(taken(body_with("status", R"("error")")).is_error);
  CHECK(taken(body_with("status", R"("\u0065rror")")).is_error);
  for (const char* value : {R"("Error")", R"("")", "1", "true", "[]"}) {
    CHECK(errors(body_with("status", value)) == error_at("status", "literal_error",
                                                         "Input should be 'success' or 'error'", value,
                                                         R"({"expected":"'success' or 'error'"})"));
  }
}

TEST_CASE_FIXTURE(ParserFixture, "9.9: texts that are too short or too long, counted in characters") {
  const auto text = [](std::size_t chars, std::string_view unit) {
    std::string out = "\"";
    for (std::size_t i = 0; i < chars; ++i) out += unit;
    return out + '"';
  };
  for (const char* field : {"agent_name", "provider", "model"}) {
    CHECK(errors(body_with(field, R"("")")) == error_at(field, "string_too_short",
                                                        "String should have at least 1 character", R"("")",
                                                        R"({"min_length":1})"));
    CHECK(parse(body_with(field, R"(" ")")));
  }
  const auto limited = [&](std::string_view field, std::size_t chars) {
    CAPTURE(field);
    for (const char* unit : {"x", "é", "😀"}) {
      CHECK(parse(body_with(field, text(chars, unit))));
      const std::string longer = text(chars + 1, unit);
      CHECK(errors(body_with(field, longer)) ==
            error_at(field, "string_too_long", fmt::format("String should have at most {} characters", chars),
                     longer, fmt::format(R"({{"max_length":{}}})", chars)));
    }
    CHECK(parse(body_with(field, text(chars, R"(\u00e9)"))));
    CHECK(errors(body_with(field, text(chars + 1, R"(\ud83d\ude00)"))).find("string_too_long") !=
          std::string::npos);
  };
  for (const char* field : {"agent_name", "model", "idempotency_key", "run_id"}) limited(field, 255);
  limited("provider", 64);
  for (const char* field : {"idempotency_key", "run_id", "prompt"}) {
    CHECK(parse(body_with(field, R"("")")));
    CHECK(parse(body_with(field, "null")));
  }
}

TEST_CASE_FIXTURE(ParserFixture, "9.9: a timestamp that names no moment") {
  for (const char* value : {R"("")", R"("now")", R"("2026-05-25")", R"("2026-02-30T00:00:00Z")",
                            R"("0000-01-01T00:00:00Z")", R"("10000-01-01T00:00:00Z")"}) {
    CHECK(errors(body_with("timestamp", value)) ==
          error_at("timestamp", "value_error", "Value error, Invalid timestamp format. Use ISO 8601.", value,
                   R"({"error":{}})"));
  }
}

TEST_CASE_FIXTURE(ParserFixture, "a lone surrogate is refused in every text, and shown as an escape") {
  for (const char* field :
       {"agent_name", "provider", "model", "idempotency_key", "run_id", "prompt", "status"}) {
    CAPTURE(field);
    for (const char* value : {R"("a\ud800")", R"("\udc00\ud800")", R"("\ud800x")"}) {
      CHECK(errors(body_with(field, value)) ==
            error_at(field, "string_unicode",
                     "Input should be a valid string, unable to parse raw data as a unicode string", value));
    }
    CHECK(errors(body_with(field, "\"\xed\xa0\x80\"")).find(R"("input":"\ud800")") != std::string::npos);
  }
  CHECK(taken(body_with("prompt", R"("\ud83d\ude00")")).prompt == "😀");
}

TEST_CASE_FIXTURE(ParserFixture, "bytes that are no UTF-8 are no text, wherever they stand") {
  const std::string body = body_with("x", R"("y")");
  for (const char* bad : {"\xff", "\xc3", "\xc0\xaf", "\xe0\x80\x80", "\xf4\x90\x80\x80", "\xed\xa0"}) {
    for (std::size_t at = 0; at <= body.size(); ++at) {
      CHECK(refused(std::string(body).insert(at, bad)) == kUnreadable);
    }
  }
  CHECK(refused(std::string("\xff\xfe{\0}\0", 6)) == kUnreadable);
  CHECK(parse("\xef\xbb\xbf" + body));
}

TEST_CASE_FIXTURE(ParserFixture, "nesting has an end, and no stack grows with it") {
  const auto nested = [](std::size_t levels) { return std::string(levels, '[') + std::string(levels, ']'); };
  CHECK(refused(nested(100'000)) == kUnreadable);
  CHECK(refused(std::string(100'000, '[')) == kUnreadable);
  CHECK(refused(body_with("x", nested(100'000))) == kUnreadable);
  CHECK(refused(body_with("agent_name", nested(100'000))) == kUnreadable);
  // The body, the list and the event are three levels of the 512.
  CHECK(parse(body_with("x", nested(509))));
  CHECK(refused(body_with("x", nested(510))) == kUnreadable);
  CHECK(errors(body_with("agent_name", nested(509))).find(nested(509)) != std::string::npos);
}

TEST_CASE_FIXTURE(ParserFixture, "of a repeated member the last one counts, however its name is written") {
  CHECK(taken(body_with("x", R"(1,"model":"last")")).model == "last");
  CHECK(taken(body_with("x", R"(1,"mod\u0065l":"last")")).model == "last");
  CHECK_FALSE(taken(body_with("status", R"("error","status":"success")")).is_error);
  // A value that is overridden is not looked at.
  CHECK(taken(body_with("run_id", R"([],"run_id":"r")")).run_id == "r");
  CHECK(errors(body_with("run_id", R"("r","run_id":[])")).find("string_type") != std::string::npos);
  CHECK(errors(R"({"events":[)" + event_with() + R"(],"events":[]})").find("too_short") != std::string::npos);
  // The echo is the object as Python keeps it: the last value at the first one's place.
  CHECK(errors(R"({"a":1,"b":2,"a":3})") ==
        R"({"type":"missing","loc":["body","events"],"msg":"Field required","input":{"a":3,"b":2}})");
}

TEST_CASE_FIXTURE(ParserFixture, "all errors come at once, by event and then in the order of declaration") {
  const std::string found = errors(
      R"({"events":[{"cost":-1,"agent_name":5,"provider":"","model":"m","output_tokens":1,"input_tokens":"x",)"
      R"("timestamp":"2026-05-25T14:30:00Z","partial":[]},7,)" +
      event_with("run_id", "1") + "]}");
  std::string places;
  for (std::size_t at = found.find(R"("loc":["body","events",)"); at != std::string::npos;
       at = found.find(R"("loc":["body","events",)", at + 1)) {
    const std::size_t begin = at + std::string_view(R"("loc":["body","events",)").size();
    places += found.substr(begin, found.find(']', begin) - begin) + " ";
  }
  CHECK(places == R"(0,"agent_name" 0,"provider" 0,"input_tokens" 0,"cost" 0,"partial" 1 2,"run_id" )");
}

TEST_CASE_FIXTURE(ParserFixture, "unknown members are ignored at both levels, but must be JSON") {
  CHECK(
      parse(R"({"x":{"events":1},"events":[)" + event_with("y", R"([1,2,{"cost":"z"}])") + R"(],"z":null})"));
  CHECK(errors(body_with("x", "tru")).find("json_invalid") != std::string::npos);
  CHECK(errors(body_with("x", "01")).find("json_invalid") != std::string::npos);
  CHECK(errors(body_with("x", "[1,]")).find("json_invalid") != std::string::npos);
}

TEST_CASE("a prompt of 2048 characters stays, a longer one is cut to 2048 with a mark at its end") {
  for (const std::string_view unit : {"x", "é", "€", "😀"}) {
    CAPTURE(unit);
    const auto times = [&](std::size_t count) {
      std::string text;
      for (std::size_t i = 0; i < count; ++i) text += unit;
      return text;
    };
    std::string arena;
    CHECK(cut_prompt(times(2048), arena) == times(2048));
    CHECK(arena.empty());
    const std::string cut = times(2048 - 15) + "... [truncated]";
    CHECK(cut_prompt(times(2049), arena) == cut);
    CHECK(cut_prompt(times(100'000), arena) == cut);
  }
}

}  // namespace
}  // namespace kavach::http
