// Config: any text is taken or refused with a message for a person; what was taken and printed reads back as
// the same config.
//
// Comment lines `#KAVACH_...=...` of the text are also given as environment variables.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/check.h"
#include "engine/config.h"

namespace kavach {
namespace {

std::vector<std::string> environment_in(std::string_view text) {
  std::vector<std::string> environment;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.starts_with("#KAVACH_")) environment.emplace_back(line.substr(1));
  }
  return environment;
}

void check_message(const std::string& message) {
  KAVACH_CHECK(!message.empty(), "a refusal says why");
  KAVACH_CHECK(message.back() != '\n', "no empty line at the end");
  const bool plain = std::all_of(message.begin(), message.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return c == '\n' || (byte >= 0x20 && byte != 0x7f);
  });
  KAVACH_CHECK(plain, "a message must not steer the terminal it is shown on");
}

void check(std::string_view text) {
  const Result<Config> config = parse_config(text, "fuzz.toml", environment_in(text));
  if (!config) return check_message(config.error().message);
  const std::string printed = print_config(*config, Secrets::kShown);
  const Result<Config> again = parse_config(printed, "printed.toml", {});
  KAVACH_CHECK(again.has_value(), "what was printed is refused");
  KAVACH_CHECK(diff_config(*config, *again).empty(), "what was printed is another config");
  KAVACH_CHECK(print_config(*again, Secrets::kShown) == printed, "printed twice, it differs");
  // A reload to the defaults: either it goes with the running settings, or the message says why not.
  const Result<Config> merged = merge_live(*config, default_config());
  if (!merged) return check_message(merged.error().message);
  for (const SettingChange& change : diff_config(*config, *merged)) {
    KAVACH_CHECK(change.reload == Reload::kLive, "a reload changed what needs a restart");
  }
}

}  // namespace
}  // namespace kavach

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  kavach::check({reinterpret_cast<const char*>(bytes), size});
  return 0;
}
