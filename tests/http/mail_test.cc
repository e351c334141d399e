// Mail: what is sent is one message with the headers that it should have, whatever its texts hold.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "engine/clock.h"
#include "http/outbound/base64.h"
#include "http/outbound/mailer.h"
#include "http/outbound/mime.h"
#include "tests/support/temp_folder.h"

namespace kavach::http {
namespace {

using kavach::test::TempFolder;

constexpr WallMicros kNow = 1'779'719'400 * kMicrosPerSecond;  // 2026-05-25T14:30:00Z
const Mailbox kFrom{"Kavach", "alerts@kavach.example"};

Mail make_mail() {
  return {.id = "0198-1", .to = {"ops@acme.example"}, .subject = "Hello", .text = "A text.\n", .html = {}};
}

std::string rendered(const Mail& mail) {
  const auto message = render_mail(mail, kFrom, kNow);
  if (!message) FAIL(message.error().message);
  return *message;
}

// The lines of the header, with those that go on put together.
std::vector<std::string> header_lines(const std::string& message) {
  std::vector<std::string> lines;
  for (std::size_t at = 0;;) {
    const std::size_t end = message.find("\r\n", at);
    REQUIRE(end != std::string::npos);
    if (end == at) return lines;
    const std::string line = message.substr(at, end - at);
    CHECK(line.size() <= 998);
    if (line.front() == ' ') {
      lines.back() += line;
    } else {
      lines.push_back(line);
    }
    at = end + 2;
  }
}

TEST_CASE("a mail of text is one message with these headers") {
  CHECK(rendered(make_mail()) ==
        "Date: Mon, 25 May 2026 14:30:00 +0000\r\nFrom: \"Kavach\" <alerts@kavach.example>\r\n"
        "To: ops@acme.example\r\nSubject: Hello\r\nMessage-ID: <0198-1@kavach.example>\r\n"
        "Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
        "Content-Transfer-Encoding: quoted-printable\r\n\r\nA text.\r\n\r\n");
}

TEST_CASE("no text of a mail becomes a header") {
  for (const std::string& attack :
       {std::string("x\r\nBcc: evil@x.example"), std::string("x\nBcc: evil@x.example"),
        std::string("x\rBcc: e@x.example"), std::string("x\r\n\r\nbody"), std::string("x\0\r\nBcc: e", 9),
        std::string("\xc3\xa9\r\nBcc: e@x.example"), std::string("\xff\r\nBcc: e@x.example"),
        std::string(2'000, 'x') + "\r\nBcc: e@x.example"}) {
    CAPTURE(attack);
    Mail mail = make_mail();
    mail.subject = attack;
    mail.text = attack;
    const std::vector<std::string> lines = header_lines(rendered(mail));
    CHECK(lines.size() == 9);
    for (const std::string& line : lines) CHECK_FALSE(line.starts_with("Bcc"));
    for (Mail bad : {make_mail(), make_mail()}) {
      bad.to = {"ops@acme.example", attack};
      CHECK_FALSE(render_mail(bad, kFrom, kNow).has_value());
      bad.to = {attack + "@acme.example"};
      CHECK_FALSE(render_mail(bad, kFrom, kNow).has_value());
    }
    mail.id = attack;
    CHECK_FALSE(render_mail(mail, kFrom, kNow).has_value());
  }
}

TEST_CASE("a subject that is not plain ASCII is made of encoded words of whole characters") {
  std::string subject;
  for (int i = 0; i < 100; ++i) subject += i % 3 == 0 ? "\xe2\x80\x94" : i % 3 == 1 ? "\xc3\xa9" : "a";
  for (const std::string& wanted : {subject, std::string("=?UTF-8?B?QQ==?="), std::string(1'000, 'x')}) {
    Mail mail = make_mail();
    mail.subject = wanted;
    const std::string message = rendered(mail);
    std::string decoded;
    const std::size_t from = message.find("Subject: ") + 9;
    std::istringstream words(message.substr(from, message.find("\r\nMessage-ID") - from));
    for (std::string word; words >> word;) {
      CHECK(word.size() <= 75);
      REQUIRE(word.starts_with("=?UTF-8?B?"));
      REQUIRE(word.ends_with("?="));
      const auto bytes = from_base64(word.substr(10, word.size() - 12));
      REQUIRE(bytes.has_value());
      CHECK((static_cast<unsigned char>(bytes->front()) & 0xc0) != 0x80);
      decoded += *bytes;
    }
    CHECK(decoded == wanted);
  }
}

TEST_CASE("bodies are short lines of ASCII, with everything else quoted") {
  Mail mail = make_mail();
  mail.text = "a=b \n\xc3\xa9\tz\t\r\n" + std::string(200, 'x') + "\n.\nlast ";
  const std::string message = rendered(mail);
  const std::string body = message.substr(message.find("\r\n\r\n") + 4);
  CHECK(body == "a=3Db=20\r\n=C3=A9\tz=09\r\n" + std::string(75, 'x') + "=\r\n" + std::string(75, 'x') +
                    "=\r\n" + std::string(50, 'x') + "\r\n.\r\nlast=20\r\n");
}

TEST_CASE("text and HTML are two forms of one mail, and no body can end its part") {
  Mail mail = make_mail();
  mail.html = "<p>\r\n--=_kavach--\r\n</p>";
  const std::string message = rendered(mail);
  CHECK(message.find("Content-Type: multipart/alternative; boundary=\"=_kavach\"\r\n\r\n--=_kavach\r\n") !=
        std::string::npos);
  CHECK(message.find("<p>\r\n--=3D_kavach--\r\n</p>\r\n--=_kavach--\r\n") != std::string::npos);
}

TEST_CASE("addresses are what mail can be sent to, with or without a name") {
  for (const std::string good : {"a@b", "first.last+tag@acme.example", "o'hara@x.example", "a@localhost"})
    CHECK(parse_mailbox(good)->address == good);
  CHECK(parse_mailbox("Ops <a@b>")->name == "Ops");
  CHECK(parse_mailbox("\"Ops, Team\" <a@b>")->name == "Ops, Team");
  CHECK(parse_mailbox("\"Ops, Team\" <a@b>")->address == "a@b");
  for (const std::string bad : {"", "a", "@b", "a@", "a@b@c", "a b@c", "a@b>", "<a@b", "-oX@b", "a@b\n",
                                "\xc3\xa9@b", "a@b,c@d", "Ops <>", "Ops <a@b> x"}) {
    CAPTURE(bad);
    const auto refused = parse_mailbox(bad);
    REQUIRE_FALSE(refused.has_value());
    CHECK_FALSE(refused.error().retryable);
  }
}

TEST_CASE("a mail survives the queue's form of it") {
  Mail mail = make_mail();
  mail.to = {"a@b", "Ops <c@d>"};
  mail.subject = "\"quoted\" \\ \xe2\x80\x94 \x01";
  mail.html = "<b>\n</b>";
  const auto read = parse_mail_json(mail_json(mail));
  REQUIRE(read.has_value());
  CHECK(read->id == mail.id);
  CHECK(read->to == mail.to);
  CHECK(read->subject == mail.subject);
  CHECK(read->text == mail.text);
  CHECK(read->html == mail.html);
  for (const std::string bad : {"", "{}", "[]", "{\"id\":\"1\",\"subject\":\"s\",\"text\":\"t\",\"to\":[1]}"})
    CHECK_FALSE(parse_mail_json(bad).has_value());
}

TEST_CASE("the API's body has the sender and no id") {
  CHECK(mail_json(make_mail(), "Kavach <a@b>") ==
        R"({"from":"Kavach <a@b>","to":["ops@acme.example"],"subject":"Hello","text":"A text.\n"})");
}

TEST_CASE("the outbox has a file for each mail, which only its owner reads") {
  const TempFolder folder;
  const std::string directory = folder.file("outbox");
  const auto mailer = make_mailer(
      {.kind = MailerOptions::Kind::kOutbox, .from = "Kavach <a@b>", .outbox_directory = directory});
  REQUIRE(mailer.has_value());
  Mail mail = make_mail();
  for (const char* id : {"1", "2"}) {
    mail.id = id;
    REQUIRE((*mailer)->send(mail).has_value());
  }
  std::size_t files = 0;
  for (const auto& file : std::filesystem::directory_iterator(directory)) {
    ++files;
    CHECK(file.path().extension() == ".eml");
    struct stat status {};
    REQUIRE(::stat(file.path().c_str(), &status) == 0);
    CHECK((status.st_mode & 0777U) == 0600U);
    std::ostringstream text;
    text << std::ifstream(file.path()).rdbuf();
    CHECK(text.str().find("\r\nSubject: Hello\r\n") != std::string::npos);
  }
  CHECK(files == 2);
  mail.to = {"nobody"};
  const auto refused = (*mailer)->send(mail);
  REQUIRE_FALSE(refused.has_value());
  CHECK_FALSE(refused.error().retryable);
}

TEST_CASE("without a way to send, a mail fails and may succeed once there is one") {
  const auto mailer = make_mailer({});
  REQUIRE(mailer.has_value());
  const auto sent = (*mailer)->send(make_mail());
  REQUIRE_FALSE(sent.has_value());
  CHECK(sent.error().retryable);
  CHECK_FALSE(make_mailer({.from = "nobody"}).has_value());
}

}  // namespace
}  // namespace kavach::http
