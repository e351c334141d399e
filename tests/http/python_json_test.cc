// Python's json: messages and offsets as CPython 3.11 gives them, and json.dumps' rendering.
//
// Far more texts are held against the real json.loads in tests/clients/fastapi_reference.
#include "http/ingest/python_json.h"

#include "engine/bounds.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <string>
#include <vector>

namespace kavach::http {
namespace {

// "3 Expecting value"; "ok"; "5 -" where json.loads raises another exception.
std::string checked(std::string_view text) {
  const auto fault = check_json(text);
  if (!fault) return "ok";
  return fmt::format("{} {}", fault->offset_bytes, fault->message == nullptr ? "-" : fault->message);
}

std::string rendered(std::string_view value) {
  REQUIRE(checked(value) == "ok");
  std::string out;
  render_json(value, out);
  return out;
}

TEST_CASE("texts in JSON's grammar pass, with any whitespace around their tokens") {
  for (const char* text :
       {"null", "true", "false", "0", "-0", "1", "-1.5e+3", "1E5", "0.0", "\"\"", "[]", "{}", "[1,[2],{}]",
        R"({"a":{"b":[null,"x"]},"a":0})", " \t\r\n{ \"a\" :\n[ 1 ,\t2 ] , \"b\" : { } } ", "\"\x7f é\"",
        R"("\"\\\/\b\f\n\r\t\u00e9\ud800")", "\"\xed\xa0\x80\""}) {
    CAPTURE(text);
    CHECK(checked(text) == "ok");
  }
}

TEST_CASE("every message of json.loads stands at json.loads' offset") {
  CHECK(checked("") == "0 Expecting value");
  CHECK(checked("  ") == "2 Expecting value");
  CHECK(checked("nul") == "0 Expecting value");
  CHECK(checked("[1,]") == "3 Expecting value");
  CHECK(checked("[,1]") == "1 Expecting value");
  CHECK(checked("-") == "0 Expecting value");
  CHECK(checked("+1") == "0 Expecting value");
  CHECK(checked(".5") == "0 Expecting value");
  CHECK(checked("'a'") == "0 Expecting value");
  CHECK(checked("NaN") == "0 Expecting value");
  CHECK(checked("[-Infinity]") == "1 Expecting value");
  CHECK(checked(R"({"a":})") == "5 Expecting value");
  CHECK(checked(R"({"a":1,"b":)") == "11 Expecting value");
  CHECK(checked("{") == "1 Expecting property name enclosed in double quotes");
  CHECK(checked("{1:2}") == "1 Expecting property name enclosed in double quotes");
  CHECK(checked(R"({"a":1, })") == "8 Expecting property name enclosed in double quotes");
  CHECK(checked(R"({"a" 1})") == "5 Expecting ':' delimiter");
  CHECK(checked(R"({"a")") == "4 Expecting ':' delimiter");
  CHECK(checked("[1 2]") == "3 Expecting ',' delimiter");
  CHECK(checked("[1") == "2 Expecting ',' delimiter");
  CHECK(checked("[1}") == "2 Expecting ',' delimiter");
  CHECK(checked(R"({"a":1)") == "6 Expecting ',' delimiter");
  CHECK(checked("[01]") == "2 Expecting ',' delimiter");
  CHECK(checked("1 1") == "2 Extra data");
  CHECK(checked("nullx") == "4 Extra data");
  CHECK(checked("01") == "1 Extra data");
  CHECK(checked("1.") == "1 Extra data");
  CHECK(checked("1e+") == "1 Extra data");
  CHECK(checked("{}}") == "2 Extra data");
  CHECK(checked(std::string_view("1\0", 2)) == "1 Extra data");
  CHECK(checked(R"(["abc)") == "1 Unterminated string starting at");
  CHECK(checked(R"(["abc\)") == "1 Unterminated string starting at");
  CHECK(checked(R"(["abc\")") == "1 Unterminated string starting at");
  CHECK(checked("[\"a\nb\"]") == "3 Invalid control character at");
  CHECK(checked("[\"\x1f\"]") == "2 Invalid control character at");
  CHECK(checked(R"(["a\x"])") == "3 Invalid \\escape");
  CHECK(checked(R"(["a\U0041"])") == "3 Invalid \\escape");
  CHECK(checked(R"(["\u12g4"])") == "3 Invalid \\uXXXX escape");
  CHECK(checked(R"(["\u+123"])") == "3 Invalid \\uXXXX escape");
  CHECK(checked(R"("\u123)") == "2 Invalid \\uXXXX escape");
  CHECK(checked(R"("\u1234)") == "2 Invalid \\uXXXX escape");
}

TEST_CASE("nesting and digits have bounds, beyond which json.loads raises something else") {
  const auto nested = [](std::size_t levels) { return std::string(levels, '[') + std::string(levels, ']'); };
  CHECK(checked(nested(bounds::kJsonDepthMax)) == "ok");
  CHECK(checked(nested(bounds::kJsonDepthMax + 1)) == fmt::format("{} -", bounds::kJsonDepthMax));
  CHECK(checked(std::string(1'000'000, '[')) == fmt::format("{} -", bounds::kJsonDepthMax));
  // Closed levels do not count.
  std::string wide = "[";
  for (int i = 0; i < 2000; ++i) wide += "[],";
  CHECK(checked(wide + "[]]") == "ok");

  CHECK(checked(std::string(4300, '9')) == "ok");
  CHECK(checked("-" + std::string(4301, '9')) == "0 -");
  CHECK(checked(std::string(4301, '9') + ".0") == "ok");
  CHECK(checked("0." + std::string(10'000, '9')) == "ok");
}

TEST_CASE("a number of the grammar is one from its first to its last character") {
  for (const char* text : {"0", "-0", "10", "1.5", "-1.5e-3", "1E+5"}) CHECK(is_json_number(text));
  for (const char* text : {"", "-", "+1", "01", "1.", ".5", "1e", "1e+", "1 ", " 1", "1x", "NaN", "0x1"}) {
    CAPTURE(text);
    CHECK_FALSE(is_json_number(text));
  }
}

TEST_CASE("the kind of a value") {
  CHECK(json_kind("null") == JsonKind::kNull);
  CHECK(json_kind("true") == JsonKind::kBool);
  CHECK(json_kind("false") == JsonKind::kBool);
  CHECK(json_kind("-12") == JsonKind::kInt);
  CHECK(json_kind("1.0") == JsonKind::kFloat);
  CHECK(json_kind("1e5") == JsonKind::kFloat);
  CHECK(json_kind("\"1\"") == JsonKind::kString);
  CHECK(json_kind("[1]") == JsonKind::kArray);
  CHECK(json_kind("{}") == JsonKind::kObject);
  CHECK(root_value("\n [1, 2] \t") == "[1, 2]");
  CHECK(root_value(" -1.5 ") == "-1.5");
}

TEST_CASE("walking shows items and members as they were written, whatever is inside") {
  std::vector<std::string> items;
  std::string_view value;
  for (JsonWalk walk(R"([ 1 , "a,]" ,[2,[3]],{"x":"}"} , null])"); walk.next_item(value);)
    items.emplace_back(value);
  CHECK(items == std::vector<std::string>{"1", R"("a,]")", "[2,[3]]", R"({"x":"}"})", "null"});

  std::vector<std::string> members;
  std::string_view key;
  for (JsonWalk walk(R"({ "a" : 1,"a":[2] , "b\"":"c:\\" })"); walk.next_member(key, value);) {
    members.push_back(fmt::format("{}={}", key, value));
  }
  CHECK(members == std::vector<std::string>{R"("a"=1)", R"("a"=[2])", R"("b\""="c:\\")"});

  CHECK_FALSE(JsonWalk("[ ]").next_item(value));
  CHECK_FALSE(JsonWalk("{ }").next_member(key, value));
}

TEST_CASE("a string without an escape is not copied, one with escapes is decoded") {
  std::string arena;
  const std::string_view plain = R"("caf\u00e9")";
  CHECK(decode_string(R"("plain é")", arena) == "plain é");
  CHECK(arena.empty());
  CHECK(decode_string(plain, arena) == "café");
  arena.clear();
  CHECK(decode_string(R"("\"\\\/\b\f\n\r\t")", arena) == "\"\\/\b\f\n\r\t");
  CHECK(decode_string(R"("\u0000\u0041\u20ac")", arena) == std::string_view("\0A€", 5));
  CHECK(decode_string(R"("\ud83d\ude00")", arena) == "😀");
  CHECK(decode_string(R"("\ud83d")", arena) == "\xed\xa0\xbd");
  CHECK(decode_string(R"("\ude00\ud83d")", arena) == "\xed\xb8\x80\xed\xa0\xbd");
  CHECK(decode_string(R"("\ud83dx")", arena) == "\xed\xa0\xbdx");
}

TEST_CASE("values are rendered as json.dumps does") {
  CHECK(rendered("{ \"a\" : [ 1 , null , true ] }") == R"({"a":[1,null,true]})");
  CHECK(rendered(R"("\u00e9\/\u0041")") == R"("é/A")");
  CHECK(rendered(R"("\u0000\u001f\u007f\u2028\"\\\b\f\n\r\t")") ==
        "\"\\u0000\\u001f\x7f\xe2\x80\xa8\\\"\\\\\\b\\f\\n\\r\\t\"");
  CHECK(rendered(R"("\ud800 \udfff")") == R"("\ud800 \udfff")");
  CHECK(rendered(R"("\ud83d\ude00")") == "\"😀\"");
  CHECK(rendered("-0") == "0");
  CHECK(rendered("123456789012345678901234567890") == "123456789012345678901234567890");
}

TEST_CASE("a float is rendered by its shortest digits, with an exponent where repr() has one") {
  CHECK(rendered("1.0") == "1.0");
  CHECK(rendered("1.50") == "1.5");
  CHECK(rendered("-0.0") == "-0.0");
  CHECK(rendered("1e2") == "100.0");
  CHECK(rendered("1e15") == "1000000000000000.0");
  CHECK(rendered("1e16") == "1e+16");
  CHECK(rendered("123456789012345680.0") == "1.2345678901234568e+17");
  CHECK(rendered("0.0001") == "0.0001");
  CHECK(rendered("0.00001") == "1e-05");
  CHECK(rendered("0.30000000000000004") == "0.30000000000000004");
  CHECK(rendered("0.1000000000000000055511151231257827") == "0.1");
  CHECK(rendered("1e23") == "1e+23");
  CHECK(rendered("5e-324") == "5e-324");
  CHECK(rendered("1.7976931348623157e308") == "1.7976931348623157e+308");
  CHECK(rendered("1e-400") == "0.0");
  // json.dumps would write Infinity, which is no JSON.
  CHECK(rendered("[1e400,-1E400]") == "[1e400,-1E400]");
}

TEST_CASE("of repeated members the last value stands at the first one's place, at every level") {
  CHECK(rendered(R"({"a":1,"b":2,"a":3})") == R"({"a":3,"b":2})");
  CHECK(rendered(R"({"a":1,"\u0061":{"x":1,"x":2},"c":[{"y":0,"y":1}]})") ==
        R"({"a":{"x":2},"c":[{"y":1}]})");
  CHECK(rendered(R"({"":1,"":2,"":3})") == R"({"":3})");
  std::string many = "{";
  for (int i = 0; i < 20'000; ++i) many += fmt::format(R"("k{}":{},)", i % 10, i);
  CHECK(rendered(many + R"("z":0})") ==
        R"({"k0":19990,"k1":19991,"k2":19992,"k3":19993,"k4":19994,"k5":19995,"k6":19996,"k7":19997,)"
        R"("k8":19998,"k9":19999,"z":0})");
}

TEST_CASE("a number's double is the nearest one, infinite or zero where it is out of range") {
  CHECK(to_double("0.1") == 0.1);
  CHECK(to_double("-12e-1") == -1.2);
  CHECK(to_double("9007199254740993") == 9007199254740992.0);
  for (const char* text : {"1e309", "1e400", "1e+400", "1e9223372036854775807", "1E99999999999999999999",
                           "10000000000e400", "0.00001e400"}) {
    CAPTURE(text);
    CHECK(to_double(text) == HUGE_VAL);
    CHECK(to_double("-" + std::string(text)) == -HUGE_VAL);
  }
  CHECK(to_double("1" + std::string(400, '0')) == HUGE_VAL);
  CHECK(to_double("0." + std::string(400, '0') + "1e800") == HUGE_VAL);
  for (const char* text : {"1e-400", "1e-9223372036854775808", "1e-99999999999999999999", "0.1e-400",
                           "12345678901e-500", "0e400", "0.0e99999999999999999999"}) {
    CAPTURE(text);
    CHECK(to_double(text) == 0.0);
    CHECK(std::signbit(to_double("-" + std::string(text))));
  }
  CHECK(to_double("1" + std::string(400, '0') + "e-800") == 0.0);
  CHECK(to_double("1" + std::string(400, '0') + "e-400") == 1.0);
}

}  // namespace
}  // namespace kavach::http
