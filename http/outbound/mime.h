// A mail as the bytes of an Internet message (RFC 5322, MIME): what SMTP sends and the outbox keeps.
//
// No text of a mail can become a header or an end of one: control characters go, a subject that is not plain
// ASCII is encoded (RFC 2047), bodies are quoted-printable. Pure functions; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/clock.h"
#include "engine/result.h"

namespace kavach::http {

struct Mail {
  std::string id;  // the same when it is sent again, so that a receiver can tell; letters, digits, '-'
  std::vector<std::string> to;
  std::string subject;
  std::string text;
  std::string html;  // empty: a mail of text only
};

struct Mailbox {
  std::string name;     // may be empty
  std::string address;  // local@domain
};
// `address` or `Name <address>`. Takes ASCII addresses without white space and quotes only, which is what
// people have; fails (finally) for anything else, and does not repeat it.
Result<Mailbox> parse_mailbox(std::string_view text);

// Lines end in CRLF. Fails (finally) when an address or the id is no such thing, or nobody is to get it.
Result<std::string> render_mail(const Mail& mail, const Mailbox& from, WallMicros now);

}  // namespace kavach::http
