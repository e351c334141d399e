#include "http/outbound/mailer.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <simdjson.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "engine/check.h"
#include "engine/timestamp.h"
#include "http/outbound/http_client.h"
#include "http/outbound/json_text.h"

namespace kavach::http {
namespace {

class NoMailer final : public Mailer {
 public:
  Status send(const Mail&) override { return passing_failure("mail is not set up (mail.kind = \"none\")"); }
  void abort() noexcept override {}
};

class OutboxMailer final : public Mailer {
 public:
  OutboxMailer(std::string directory, Mailbox from, const Clock& clock)
      : directory_(std::move(directory)), from_(std::move(from)), clock_(clock) {}

  Status send(const Mail& mail) override {
    const WallMicros now = clock_.wall();
    const auto message = render_mail(mail, from_, now);
    if (!message) return message.error();
    const auto failed = [] { return passing_failure(fmt::format("the outbox: {}", error_text(errno))); };
    if (::mkdir(directory_.c_str(), S_IRWXU) != 0 && errno != EEXIST) return failed();
    // Whoever watches the folder sees whole mails, in the order in which they were sent.
    std::string name = fmt::format("{}-{}.eml", format_timestamp(now), mail.id);
    std::replace(name.begin(), name.end(), ':', '.');
    const std::string path = directory_ + "/" + name;
    const std::string draft = directory_ + "/." + name;
    const int file = ::open(draft.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (file < 0) return failed();
    const ssize_t written = ::write(file, message->data(), message->size());
    ::close(file);
    if (written != static_cast<ssize_t>(message->size())) return failed();
    if (::rename(draft.c_str(), path.c_str()) != 0) return failed();
    return {};
  }
  void abort() noexcept override {}

 private:
  const std::string directory_;
  const Mailbox from_;
  const Clock& clock_;
};

class ResendMailer final : public Mailer {
 public:
  ResendMailer(const MailerOptions& options)
      : url_(options.resend_url + "/emails"),
        key_(options.resend_api_key),
        from_(options.from),
        // An operator's own server may be anywhere.
        client_(make_http_client(
            {.timeout_ms = options.timeout_ms, .allow_private = true, .ca_file = options.ca_file})) {}

  Status send(const Mail& mail) override {
    const auto response = client_->send({.method = "POST",
                                         .url = url_,
                                         .headers = {{"Authorization", "Bearer " + key_},
                                                     {"Content-Type", "application/json"},
                                                     {"Idempotency-Key", mail.id}},
                                         .body = mail_json(mail, from_),
                                         .needs_body = false});
    if (!response) return response.error();
    const int status = response->status;
    if (status >= 200 && status <= 299) return {};
    // A key that is refused can be replaced, a mail that is refused stays so.
    const bool may_pass = status == 401 || status == 403 || status == 408 || status == 429 || status >= 500;
    return Failure{fmt::format("the mail API answered {}", status), may_pass};
  }
  void abort() noexcept override { client_->abort(); }

 private:
  const std::string url_;
  const std::string key_;
  const std::string from_;
  const std::unique_ptr<HttpClient> client_;
};

template <auto Destroy>
struct Destroyer {
  template <typename T>
  void operator()(T* p) const noexcept {
    Destroy(p);
  }
};

struct Upload {
  std::string_view left;
};

std::size_t give_body(char* into, std::size_t size, std::size_t count, void* context) {
  auto& upload = *static_cast<Upload*>(context);
  const std::size_t given = std::min(size * count, upload.left.size());
  std::memcpy(into, upload.left.data(), given);
  upload.left.remove_prefix(given);
  return given;
}

std::size_t ignore_answer(char*, std::size_t size, std::size_t count, void*) {
  return size * count;
}

int is_aborted(void* context, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<const std::atomic<bool>*>(context)->load() ? 1 : 0;
}

class SmtpMailer final : public Mailer {
 public:
  SmtpMailer(MailerOptions options, Mailbox from, const Clock& clock)
      : options_(std::move(options)), from_(std::move(from)), clock_(clock) {
    init_curl();
  }

  Status send(const Mail& mail) override {
    const auto message = render_mail(mail, from_, clock_.wall());
    if (!message) return message.error();
    curl_slist* list = nullptr;
    for (const std::string& one : mail.to) {
      list = curl_slist_append(list, fmt::format("<{}>", parse_mailbox(one)->address).c_str());
      KAVACH_CHECK(list != nullptr, "out of memory");
    }
    const std::unique_ptr<curl_slist, Destroyer<curl_slist_free_all>> recipients(list);
    const std::unique_ptr<CURL, Destroyer<curl_easy_cleanup>> easy(curl_easy_init());
    KAVACH_CHECK(easy != nullptr, "out of memory");
    Upload upload{*message};
    set_up(easy.get(), recipients.get(), upload);
    const CURLcode code = curl_easy_perform(easy.get());
    if (code == CURLE_OK) return {};
    long reply = 0;
    curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &reply);
    return failure_of(code, reply);
  }
  void abort() noexcept override { aborted_.store(true); }

 private:
  void set_up(CURL* easy, curl_slist* recipients, Upload& upload) {
    curl_easy_setopt(easy, CURLOPT_URL, options_.smtp_url.c_str());
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "smtp,smtps");
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(options_.timeout_ms));
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_USE_SSL,
                     static_cast<long>(options_.smtp_starttls ? CURLUSESSL_ALL : CURLUSESSL_NONE));
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    if (!options_.ca_file.empty()) curl_easy_setopt(easy, CURLOPT_CAINFO, options_.ca_file.c_str());
    if (!options_.smtp_user.empty()) {
      curl_easy_setopt(easy, CURLOPT_USERNAME, options_.smtp_user.c_str());
      curl_easy_setopt(easy, CURLOPT_PASSWORD, options_.smtp_password.c_str());
    }
    curl_easy_setopt(easy, CURLOPT_MAIL_FROM, fmt::format("<{}>", from_.address).c_str());
    curl_easy_setopt(easy, CURLOPT_MAIL_RCPT, recipients);
    curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, &give_body);
    curl_easy_setopt(easy, CURLOPT_READDATA, &upload);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &ignore_answer);
    curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, &is_aborted);
    curl_easy_setopt(easy, CURLOPT_XFERINFODATA, &aborted_);
  }

  static Status failure_of(CURLcode code, long reply) {
    // 5yz is the server's last word on this mail; of the log-in it is not.
    const bool is_final = reply >= 500 && reply <= 599 && reply != 530 && reply != 534 && reply != 535 &&
                          reply != 538 && code != CURLE_LOGIN_DENIED && code != CURLE_USE_SSL_FAILED;
    std::string message = fmt::format("the mail server: {}", curl_easy_strerror(code));
    if (reply != 0) message += fmt::format(" (reply {})", reply);
    return Failure{std::move(message), !is_final};
  }

  const MailerOptions options_;
  const Mailbox from_;
  const Clock& clock_;
  std::atomic<bool> aborted_{false};
};

}  // namespace

Result<std::unique_ptr<Mailer>> make_mailer(const MailerOptions& options, const Clock& clock) {
  auto from = parse_mailbox(options.from);
  if (!from) return failure("mail.from is no address");
  std::unique_ptr<Mailer> mailer;
  switch (options.kind) {
    case MailerOptions::Kind::kNone:
      mailer = std::make_unique<NoMailer>();
      break;
    case MailerOptions::Kind::kOutbox:
      mailer = std::make_unique<OutboxMailer>(options.outbox_directory, std::move(*from), clock);
      break;
    case MailerOptions::Kind::kSmtp:
      mailer = std::make_unique<SmtpMailer>(options, std::move(*from), clock);
      break;
    case MailerOptions::Kind::kResend:
      mailer = std::make_unique<ResendMailer>(options);
      break;
  }
  return mailer;
}

std::string mail_json(const Mail& mail, std::string_view from) {
  std::string json = "{";
  if (from.empty()) {
    json += fmt::format("\"id\":{}", json_string(mail.id));
  } else {
    json += fmt::format("\"from\":{}", json_string(from));
  }
  json += ",\"to\":[";
  for (std::size_t i = 0; i < mail.to.size(); ++i) json += (i == 0 ? "" : ",") + json_string(mail.to[i]);
  json += fmt::format("],\"subject\":{},\"text\":{}", json_string(mail.subject), json_string(mail.text));
  if (!mail.html.empty()) json += fmt::format(",\"html\":{}", json_string(mail.html));
  return json + "}";
}

Result<Mail> parse_mail_json(std::string_view json) {
  const auto broken = [] { return failure("this is no mail"); };
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  if (parser.parse(json.data(), json.size()).get(object) != simdjson::SUCCESS) return broken();
  const auto text_of = [&object](const char* key, std::string& into) {
    std::string_view text;
    if (object[key].get(text) != simdjson::SUCCESS) return false;
    into = text;
    return true;
  };
  Mail mail;
  if (!text_of("id", mail.id) || !text_of("subject", mail.subject) || !text_of("text", mail.text))
    return broken();
  text_of("html", mail.html);
  simdjson::dom::array to;
  if (object["to"].get(to) != simdjson::SUCCESS) return broken();
  for (const simdjson::dom::element one : to) {
    std::string_view address;
    if (one.get(address) != simdjson::SUCCESS) return broken();
    mail.to.emplace_back(address);
  }
  return mail;
}

}  // namespace kavach::http
