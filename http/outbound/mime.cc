#include "http/outbound/mime.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <ctime>

#include "http/outbound/base64.h"
#include "http/outbound/json_text.h"

namespace kavach::http {
namespace {

constexpr std::string_view kCrlf = "\r\n";
// Quoted-printable never writes "=_", so that no body can hold it.
constexpr std::string_view kBoundary = "=_kavach";

bool is_printable(char c) {
  return c >= 0x20 && c <= 0x7e;
}

std::string without_controls(std::string_view text) {
  std::string line = valid_utf8(text);
  std::replace_if(
      line.begin(), line.end(), [](char c) { return static_cast<std::uint8_t>(c) < 0x20 || c == 0x7f; }, ' ');
  return line;
}

// A line of a message has at most 998 characters; a subject that long is encoded, which folds it.
constexpr std::size_t kPlainMax = 900;

// Text of a header: plain where it can be, else encoded words of whole characters.
std::string header_text(std::string_view raw) {
  const std::string text = without_controls(raw);
  const bool is_plain = text.size() <= kPlainMax && std::all_of(text.begin(), text.end(), is_printable) &&
                        text.find("=?") == std::string::npos;
  if (is_plain) return text;
  // An encoded word has at most 75 characters: 12 of "=?UTF-8?B?" and "?=", 60 of base64 for 45 bytes.
  constexpr std::size_t kWordBytes = 45;
  std::string encoded;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = std::min(text.size(), at + kWordBytes);
    while (end < text.size() && (static_cast<std::uint8_t>(text[end]) & 0xc0U) == 0x80U) --end;
    if (!encoded.empty()) encoded += "\r\n ";
    encoded += fmt::format("=?UTF-8?B?{}?=", to_base64(std::string_view(text).substr(at, end - at)));
    at = end;
  }
  return encoded;
}

std::string quoted_printable(std::string_view raw) {
  constexpr std::size_t kLineMax = 75;  // and "=" where it goes on
  const std::string text = valid_utf8(raw);
  std::string out;
  std::size_t line = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool is_crlf = c == '\r' && i + 1 < text.size() && text[i + 1] == '\n';
    if (is_crlf) continue;
    if (c == '\n') {
      out += kCrlf;
      line = 0;
      continue;
    }
    const bool ends_line = i + 1 == text.size() || text[i + 1] == '\n' || text[i + 1] == '\r';
    const bool is_plain =
        (is_printable(c) && c != '=' && (c != ' ' || !ends_line)) || (c == '\t' && !ends_line);
    const std::size_t size = is_plain ? 1 : 3;
    if (line + size > kLineMax) {
      out += "=\r\n";
      line = 0;
    }
    if (is_plain) {
      out.push_back(c);
    } else {
      out += fmt::format("={:02X}", static_cast<unsigned>(static_cast<std::uint8_t>(c)));
    }
    line += size;
  }
  return out;
}

std::string mailbox_text(const Mailbox& mailbox) {
  if (mailbox.name.empty()) return mailbox.address;
  std::string name = header_text(mailbox.name);
  if (!name.starts_with("=?")) {
    std::string quoted = "\"";
    for (const char c : name) {
      if (c == '"' || c == '\\') quoted.push_back('\\');
      quoted.push_back(c);
    }
    name = quoted + "\"";
  }
  return fmt::format("{} <{}>", name, mailbox.address);
}

std::string date_text(WallMicros now) {
  constexpr std::string_view kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr std::string_view kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                          "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const auto seconds = static_cast<std::time_t>(now / kMicrosPerSecond);
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  return fmt::format("{}, {} {} {} {:02}:{:02}:{:02} +0000", kDays[utc.tm_wday], utc.tm_mday,
                     kMonths[utc.tm_mon], utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
}

std::string part(std::string_view type, std::string_view body) {
  return fmt::format(
      "Content-Type: {}; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n{}\r\n", type,
      quoted_printable(body));
}

bool is_id(std::string_view id) {
  return !id.empty() && id.size() <= 100 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
  });
}

}  // namespace

Result<Mailbox> parse_mailbox(std::string_view text) {
  const auto refused = [] { return failure("a mail address is none that mail can be sent to"); };
  Mailbox mailbox;
  std::string_view address = text;
  if (const std::size_t open = text.find('<'); open != std::string_view::npos) {
    if (!text.ends_with('>')) return refused();
    std::string_view name = text.substr(0, open);
    while (name.ends_with(' ')) name.remove_suffix(1);
    if (name.size() >= 2 && name.starts_with('"') && name.ends_with('"'))
      name = name.substr(1, name.size() - 2);
    mailbox.name = name;
    address = text.substr(open + 1, text.size() - open - 2);
  }
  constexpr std::size_t kAddressMax = 254;
  const std::size_t at = address.find('@');
  const bool is_address =
      at != std::string_view::npos && at > 0 && at + 1 < address.size() &&
      address.find('@', at + 1) == std::string_view::npos && address.size() <= kAddressMax &&
      address.front() != '-' && std::all_of(address.begin(), address.end(), [](char c) {
        return c > 0x20 && c < 0x7f && std::string_view("<>()[]\\,;:\"").find(c) == std::string_view::npos;
      });
  if (!is_address) return refused();
  mailbox.address = address;
  return mailbox;
}

Result<std::string> render_mail(const Mail& mail, const Mailbox& from, WallMicros now) {
  if (!is_id(mail.id)) return failure("a mail has no id");
  if (mail.to.empty()) return failure("a mail is to nobody");
  std::string to;
  for (const std::string& one : mail.to) {
    auto mailbox = parse_mailbox(one);
    if (!mailbox) return mailbox.error();
    if (!to.empty()) to += ",\r\n ";
    to += mailbox_text(*mailbox);
  }
  const std::string domain = from.address.substr(from.address.find('@') + 1);
  std::string message = fmt::format(
      "Date: {}\r\nFrom: {}\r\nTo: {}\r\nSubject: {}\r\nMessage-ID: <{}@{}>\r\nAuto-Submitted: "
      "auto-generated\r\n"
      "MIME-Version: 1.0\r\n",
      date_text(now), mailbox_text(from), to, header_text(mail.subject), mail.id, domain);
  if (mail.html.empty()) {
    message += part("text/plain", mail.text);
  } else {
    message += fmt::format(
        "Content-Type: multipart/alternative; boundary=\"{0}\"\r\n\r\n--{0}\r\n{1}--{0}\r\n{2}--{0}--\r\n",
        kBoundary, part("text/plain", mail.text), part("text/html", mail.html));
  }
  return Result<std::string>(boost::system::in_place_value, std::move(message));
}

}  // namespace kavach::http
