// The endpoints of accounts: register, prove an address, log in, passwords (contract/agentkavach.md section
// 4).
//
// Nobody learns from an answer whether an address has an account, but where the contract says so (409 of
// register, 404 of codes): neither by its text nor by its time. Tries are counted by address and by peer, for
// all nodes of a database together.
#include <array>

#include "http/control/endpoint.h"

namespace kavach::http {
namespace {

using sink::Account;
using sink::CodeAnswer;
using sink::CodePurpose;

constexpr std::int64_t kCodeSeconds = 600;
constexpr std::int64_t kResetTokenSeconds = 300;
constexpr std::int64_t kCodeTries = 5;
constexpr std::int64_t kTriesWindowSeconds = 900;

constexpr std::size_t kPasswordCharsMin = 8;
constexpr std::size_t kPasswordCharsMax = 128;

// --- what they take and give -------------------------------------------------------------------------------

constexpr TextRule kPasswordRule{.chars_min = kPasswordCharsMin, .chars_max = kPasswordCharsMax};
constexpr TextRule kAnyPasswordRule{.chars_min = 1, .chars_max = 1024};
constexpr TextRule kNameRule{.chars_min = 0, .chars_max = 100};

constexpr Field kRegisterFields[] = {
    {.name = "email", .kind = FieldKind::kEmail, .required = true},
    {.name = "password", .required = true, .text = kPasswordRule},
    {.name = "org_name", .required = true, .text = {.chars_min = 1, .chars_max = 255}},
    {.name = "first_name", .text = kNameRule, .preset = R"("")"},
    {.name = "last_name", .text = kNameRule, .preset = R"("")"}};
constexpr Schema kRegister{"Register", kRegisterFields};
constexpr Field kRegisteredFields[] = {
    {.name = "message", .required = true},
    {.name = "email", .required = true},
    {.name = "requires_verification", .kind = FieldKind::kFlag, .required = true}};
constexpr Schema kRegistered{"Registered", kRegisteredFields};

constexpr Field kCodeFields[] = {
    {.name = "email", .kind = FieldKind::kEmail, .required = true},
    {.name = "code", .required = true, .text = {.chars_min = 1, .chars_max = 64}}};
constexpr Schema kCode{"Code", kCodeFields};
constexpr Field kTokenFields[] = {{.name = "access_token", .required = true},
                                  {.name = "token_type", .required = true},
                                  {.name = "expires_in", .kind = FieldKind::kInteger, .required = true}};
constexpr Schema kToken{"Token", kTokenFields};

constexpr Field kLoginFields[] = {{.name = "email", .kind = FieldKind::kEmail, .required = true},
                                  {.name = "password", .required = true, .text = kAnyPasswordRule}};
constexpr Schema kLogin{"Login", kLoginFields};

constexpr Field kEmailFields[] = {{.name = "email", .kind = FieldKind::kEmail, .required = true}};
constexpr Schema kEmail{"Email", kEmailFields};
constexpr Field kMessageFields[] = {{.name = "message", .required = true}};
constexpr Schema kMessage{"Message", kMessageFields};

constexpr Field kResetTokenFields[] = {{.name = "reset_token", .required = true},
                                       {.name = "expires_in", .kind = FieldKind::kInteger, .required = true}};
constexpr Schema kResetToken{"ResetToken", kResetTokenFields};
constexpr Field kResetFields[] = {
    {.name = "reset_token", .required = true, .text = {.chars_min = 1, .chars_max = 256}},
    {.name = "new_password", .required = true, .text = kPasswordRule}};
constexpr Schema kReset{"Reset", kResetFields};

constexpr std::string_view kPurposes[] = {"verify", "reset"};
constexpr Field kResendFields[] = {
    {.name = "email", .kind = FieldKind::kEmail, .required = true},
    {.name = "purpose", .kind = FieldKind::kChoice, .choices = kPurposes, .preset = R"("verify")"}};
constexpr Schema kResend{"Resend", kResendFields};

constexpr Field kChangeFields[] = {{.name = "current_password", .required = true, .text = kAnyPasswordRule},
                                   {.name = "new_password", .required = true, .text = kPasswordRule}};
constexpr Schema kChange{"ChangePassword", kChangeFields};

constexpr Field kMeFields[] = {{.name = "id", .required = true},
                               {.name = "email", .required = true},
                               {.name = "first_name", .required = true},
                               {.name = "last_name", .required = true},
                               {.name = "role", .required = true},
                               {.name = "email_verified", .kind = FieldKind::kFlag, .required = true},
                               {.name = "org_id", .required = true},
                               {.name = "org_name", .required = true},
                               {.name = "tier", .required = true},
                               {.name = "timezone", .required = true},
                               {.name = "created_at", .kind = FieldKind::kTimestamp, .required = true}};
constexpr Schema kMe{"Me", kMeFields};

// --- shared steps ------------------------------------------------------------------------------------------

Reply message(std::string_view text, int status = 200) {
  return {.status = status, .body = JsonOut().begin().text("message", text).end().take()};
}

Reply token_reply(const Call& call, const Account& account, std::int64_t epoch) {
  const std::string token = call.services.tokens.sign({.user_id = account.user_id,
                                                       .org_id = account.org_id,
                                                       .email = account.email,
                                                       .role = account.role,
                                                       .epoch = epoch},
                                                      call.services.clock.wall());
  return {.body = JsonOut()
                      .begin()
                      .text("access_token", token)
                      .text("token_type", "bearer")
                      .integer("expires_in", TokenSigner::kLifetimeSeconds)
                      .end()
                      .take()};
}

std::int64_t window_of(const Call& call) {
  return call.services.clock.wall() / kMicrosPerSecond / kTriesWindowSeconds * kTriesWindowSeconds;
}

// Counts one more try of `action` by this peer and for this address. A reply: there were too many.
sink::StoreResult<std::optional<Reply>> throttle(Call& call, std::string_view action,
                                                 std::string_view email) {
  const std::int64_t window = window_of(call);
  for (const std::string& scope : {"auth:" + std::string(action) + ":ip:" + std::string(call.peer),
                                   "auth:" + std::string(action) + ":who:" + digest_hex(email)}) {
    const auto tries = sink::count_in_window(call.store, scope, window);
    if (!tries) return tries.error();
    if (*tries <= call.services.config.control.tries_max) continue;
    Reply reply = refusal(429, "Too many attempts. Try again later.");
    const std::int64_t left = window + kTriesWindowSeconds - call.services.clock.wall() / kMicrosPerSecond;
    reply.headers = "Retry-After: " + std::to_string(std::max<std::int64_t>(1, left)) + "\r\n";
    return std::optional<Reply>(std::move(reply));
  }
  return std::optional<Reply>();
}

sink::StoreResult<void> send_code(Call& call, const Account& account, CodePurpose purpose) {
  const std::string code = random_code();
  auto put = sink::put_code(call.store, account.user_id, purpose, digest_hex(account.user_id + code),
                            call.services.clock.wall() + kCodeSeconds * kMicrosPerSecond);
  if (!put) return put.error();
  call.services.send_code(account.email, purpose, code);
  return {};
}

// --- the endpoints -----------------------------------------------------------------------------------------

Outcome register_account(Call& call) {
  const std::string_view email = call.body.text("email");
  auto throttled = throttle(call, "register", email);
  if (!throttled) return throttled.error();
  if (*throttled) return std::move(**throttled);
  const std::string hash = call.services.passwords.hash(call.body.text("password"));
  auto made = sink::register_account(call.store, {.email = email,
                                                  .password_hash = hash,
                                                  .first_name = call.body.text("first_name"),
                                                  .last_name = call.body.text("last_name"),
                                                  .org_name = call.body.text("org_name")});
  if (!made) return made.error();
  if (!*made) return refusal(409, "Email already registered");
  auto account = sink::account_by_email(call.store, email);
  if (!account) return account.error();
  if (*account) {
    if (auto sent = send_code(call, **account, CodePurpose::kVerify); !sent) return sent.error();
  }
  return Reply{.status = 201,
               .body = JsonOut()
                           .begin()
                           .text("message", "Verification code sent")
                           .text("email", email)
                           .flag("requires_verification", true)
                           .end()
                           .take()};
}

// The account whose code this is, or why not.
struct Proven {
  std::optional<Account> account;
  Reply refusal;
};
sink::StoreResult<Proven> prove(Call& call, CodePurpose purpose) {
  const std::string_view email = call.body.text("email");
  auto throttled = throttle(call, "code", email);
  if (!throttled) return throttled.error();
  if (*throttled) return Proven{{}, std::move(**throttled)};
  auto account = sink::account_by_email(call.store, email);
  if (!account) return account.error();
  if (!*account) return Proven{{}, not_found("User")};
  auto answer =
      sink::try_code(call.store, (*account)->user_id, purpose,
                     digest_hex((*account)->user_id + std::string(call.body.text("code"))), kCodeTries);
  if (!answer) return answer.error();
  if (*answer != CodeAnswer::kRight) return Proven{{}, refusal(400, "Invalid or expired code")};
  return Proven{std::move(*account), {}};
}

Outcome verify_email(Call& call) {
  auto proven = prove(call, CodePurpose::kVerify);
  if (!proven) return proven.error();
  if (!proven->account) return std::move(proven->refusal);
  const Account& account = *proven->account;
  if (auto marked = sink::mark_verified(call.store, account.user_id); !marked) return marked.error();
  return token_reply(call, account, account.token_epoch);
}

Outcome login(Call& call) {
  const std::string_view email = call.body.text("email");
  auto throttled = throttle(call, "login", email);
  if (!throttled) return throttled.error();
  if (*throttled) return std::move(**throttled);
  auto account = sink::account_by_email(call.store, email);
  if (!account) return account.error();
  const std::string hash = *account && (*account)->active ? (*account)->password_hash : std::string();
  if (!call.services.passwords.matches(call.body.text("password"), hash))
    return refusal(401, "Invalid email or password");
  if (!(*account)->email_verified) {
    return Reply{.status = 403,
                 .body = JsonOut()
                             .begin()
                             .text("detail", "Email not verified")
                             .flag("requires_verification", true)
                             .end()
                             .take()};
  }
  if (auto noted = sink::note_login(call.store, (*account)->user_id); !noted) return noted.error();
  return token_reply(call, **account, (*account)->token_epoch);
}

// The same answer for everybody.
Outcome send_code_to(Call& call, CodePurpose purpose, std::string_view said) {
  const std::string_view email = call.body.text("email");
  auto throttled = throttle(call, "send", email);
  if (!throttled) return throttled.error();
  if (*throttled) return std::move(**throttled);
  auto account = sink::account_by_email(call.store, email);
  if (!account) return account.error();
  const bool wanted =
      *account && (*account)->active && (purpose == CodePurpose::kReset || !(*account)->email_verified);
  if (wanted) {
    if (auto sent = send_code(call, **account, purpose); !sent) return sent.error();
  }
  return message(said);
}

Outcome forgot_password(Call& call) {
  return send_code_to(call, CodePurpose::kReset, "If the account exists, a reset code has been sent");
}

Outcome resend_code(Call& call) {
  const bool is_reset = call.body.text("purpose") == "reset";
  return send_code_to(call, is_reset ? CodePurpose::kReset : CodePurpose::kVerify, "Verification code sent");
}

Outcome verify_reset_code(Call& call) {
  auto proven = prove(call, CodePurpose::kReset);
  if (!proven) return proven.error();
  if (!proven->account) return std::move(proven->refusal);
  const std::string token = random_token();
  auto put = sink::put_reset_token(call.store, proven->account->user_id, digest_hex(token),
                                   call.services.clock.wall() + kResetTokenSeconds * kMicrosPerSecond);
  if (!put) return put.error();
  return Reply{.body = JsonOut()
                           .begin()
                           .text("reset_token", token)
                           .integer("expires_in", kResetTokenSeconds)
                           .end()
                           .take()};
}

Outcome reset_password(Call& call) {
  auto user = sink::take_reset_token(call.store, digest_hex(call.body.text("reset_token")));
  if (!user) return user.error();
  if (!*user) return refusal(400, "Invalid or expired reset token");
  const std::string hash = call.services.passwords.hash(call.body.text("new_password"));
  if (auto set = sink::set_password(call.store, **user, hash); !set) return set.error();
  // Who got the code has the address.
  if (auto marked = sink::mark_verified(call.store, **user); !marked) return marked.error();
  return message("Password updated");
}

Outcome refresh(Call& call) {
  return token_reply(call, call.caller, call.caller.token_epoch);
}

Outcome change_password(Call& call) {
  auto throttled = throttle(call, "change", call.caller.email);
  if (!throttled) return throttled.error();
  if (*throttled) return std::move(**throttled);
  if (!call.services.passwords.matches(call.body.text("current_password"), call.caller.password_hash))
    return refusal(400, "Current password is incorrect");
  const std::string hash = call.services.passwords.hash(call.body.text("new_password"));
  if (auto set = sink::set_password(call.store, call.caller.user_id, hash); !set) return set.error();
  return message("Password updated");
}

Outcome me(Call& call) {
  const Account& account = call.caller;
  return Reply{.body = JsonOut()
                           .begin()
                           .text("id", account.user_id)
                           .text("email", account.email)
                           .text("first_name", account.first_name)
                           .text("last_name", account.last_name)
                           .text("role", account.role)
                           .flag("email_verified", account.email_verified)
                           .text("org_id", account.org_id)
                           .text("org_name", account.org_name)
                           .text("tier", account.tier)
                           .text("timezone", account.timezone)
                           .time("created_at", account.created_at)
                           .end()
                           .take()};
}

constexpr int kConflict[] = {409};
constexpr int kBadCode[] = {400, 404};
constexpr int kBadLogin[] = {401, 403};
constexpr int kBadRequest[] = {400};

constexpr std::string_view kTag = "auth";
constexpr Endpoint kEndpoints[] = {
    {.method = Method::kPost,
     .path = "/v1/auth/register",
     .tag = kTag,
     .summary = "Make an account and its organization",
     .access = Access::kPublic,
     .body = &kRegister,
     .status = 201,
     .reply = &kRegistered,
     .errors = kConflict,
     .run = register_account},
    {.method = Method::kPost,
     .path = "/v1/auth/verify-email",
     .tag = kTag,
     .summary = "Prove an address by its code",
     .access = Access::kPublic,
     .body = &kCode,
     .reply = &kToken,
     .errors = kBadCode,
     .run = verify_email},
    {.method = Method::kPost,
     .path = "/v1/auth/login",
     .tag = kTag,
     .summary = "Get a token for a password",
     .access = Access::kPublic,
     .body = &kLogin,
     .reply = &kToken,
     .errors = kBadLogin,
     .run = login},
    {.method = Method::kPost,
     .path = "/v1/auth/forgot-password",
     .tag = kTag,
     .summary = "Have a reset code sent",
     .access = Access::kPublic,
     .body = &kEmail,
     .reply = &kMessage,
     .run = forgot_password},
    {.method = Method::kPost,
     .path = "/v1/auth/verify-reset-code",
     .tag = kTag,
     .summary = "Get a reset token for a reset code",
     .access = Access::kPublic,
     .body = &kCode,
     .reply = &kResetToken,
     .errors = kBadCode,
     .run = verify_reset_code},
    {.method = Method::kPost,
     .path = "/v1/auth/reset-password",
     .tag = kTag,
     .summary = "Set a password by a reset token",
     .access = Access::kPublic,
     .body = &kReset,
     .reply = &kMessage,
     .errors = kBadRequest,
     .run = reset_password},
    {.method = Method::kPost,
     .path = "/v1/auth/resend-otp",
     .tag = kTag,
     .summary = "Have a code sent again",
     .access = Access::kPublic,
     .body = &kResend,
     .reply = &kMessage,
     .run = resend_code},
    {.method = Method::kPost,
     .path = "/v1/auth/refresh",
     .tag = kTag,
     .summary = "Get a new token for an old one",
     .access = Access::kExpired,
     .reply = &kToken,
     .run = refresh},
    {.method = Method::kPost,
     .path = "/v1/auth/change-password",
     .tag = kTag,
     .summary = "Set another password",
     .access = Access::kMember,
     .body = &kChange,
     .reply = &kMessage,
     .errors = kBadRequest,
     .run = change_password},
    {.method = Method::kGet,
     .path = "/v1/auth/me",
     .tag = kTag,
     .summary = "Who the token is",
     .access = Access::kMember,
     .reply = &kMe,
     .run = me},
};

}  // namespace

std::span<const Endpoint> auth_endpoints() {
  return kEndpoints;
}

}  // namespace kavach::http
