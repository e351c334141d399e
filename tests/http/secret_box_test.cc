// SecretBox: what is sealed opens again with the same key only, and no change of it goes unnoticed.
#include "http/outbound/secret_box.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/temp_folder.h"

namespace kavach::http {
namespace {

using kavach::test::TempFolder;

const std::string kHexKey(64, 'a');

TEST_CASE("what is sealed opens again, whatever its size and bytes") {
  for (const std::string& key : {kHexKey, std::string("a passphrase"), std::string(1, 'x')}) {
    const SecretBox box(key);
    for (const std::size_t size : {0U, 1U, 2U, 3U, 15U, 16U, 17U, 1'000U}) {
      std::string text;
      for (std::size_t i = 0; i < size; ++i) text.push_back(static_cast<char>(i * 37));
      const auto opened = box.open(box.seal(text));
      REQUIRE(opened.has_value());
      CHECK(*opened == text);
    }
  }
}

TEST_CASE("sealed text is ASCII, names its key, shows nothing of the text, and is never the same twice") {
  const SecretBox box(kHexKey);
  const std::string sealed = box.seal("https://hooks.example/s3cret");
  CHECK(sealed.starts_with("k1." + box.key_id() + "."));
  CHECK(sealed.find("s3cret") == std::string::npos);
  CHECK(sealed.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/=.") ==
        std::string::npos);
  std::set<std::string> all;
  for (int i = 0; i < 1'000; ++i) all.insert(box.seal("same"));
  CHECK(all.size() == 1'000);
}

TEST_CASE("every change of every character of a sealed text is noticed") {
  const SecretBox box(kHexKey);
  const std::string sealed = box.seal("a text");
  for (std::size_t i = 0; i < sealed.size(); ++i) {
    for (const char other : {'A', 'b', '0', '+', '=', '.', ' ', '\0'}) {
      if (sealed[i] == other) continue;
      std::string changed = sealed;
      changed[i] = other;
      CHECK_FALSE(box.open(changed).has_value());
    }
    CHECK_FALSE(box.open(sealed.substr(0, i)).has_value());
    CHECK_FALSE(box.open(sealed.substr(i + 1)).has_value());
    CHECK_FALSE(box.open(sealed + sealed[i]).has_value());
  }
  CHECK_FALSE(box.open("").has_value());
}

TEST_CASE("another key does not open it, and that is told from damage") {
  const SecretBox box(kHexKey);
  const SecretBox other("another");
  CHECK(box.key_id() != other.key_id());
  const std::string sealed = box.seal("a text");
  const auto refused = other.open(sealed);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().retryable);
  CHECK(refused.error().message.find("control.secret_key") != std::string::npos);
  // Under the other key's name it is only damaged.
  const auto renamed = other.open("k1." + other.key_id() + sealed.substr(sealed.find('.', 3)));
  REQUIRE_FALSE(renamed.has_value());
  CHECK_FALSE(renamed.error().retryable);
}

TEST_CASE("a text that was sealed by an earlier version still opens") {
  const SecretBox box("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
  CHECK(box.key_id() ==
        SecretBox("0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF").key_id());
  CHECK(box.key_id() == "5eadf6e9");
  const auto opened =
      box.open("k1.5eadf6e9.UBAqyOv3ChHrqsECwp8fqbQYxxVj7Wbm8Bsi1LFDSeL/ygu/PfaYgrRCFfLUK8o5sy7fe0tuxw==");
  REQUIRE(opened.has_value());
  CHECK(*opened == "https://hooks.example/T0/B0");
}

TEST_CASE("the key file is made once, for its owner only, and read by all who come later") {
  const TempFolder folder;
  const std::string path = folder.file("deep/secret.key");
  std::vector<std::string> keys(8);
  std::vector<std::thread> starters;
  for (std::string& key : keys) {
    starters.emplace_back([&key, &path] {
      if (auto made = load_or_make_key(path)) key = *made;
    });
  }
  for (std::thread& starter : starters) starter.join();
  CHECK(keys[0].size() == 64);
  CHECK(std::set(keys.begin(), keys.end()).size() == 1);
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777U) == 0600U);
  // Nothing else is left in its folder.
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path() / "deep"), {}) == 1);
}

TEST_CASE("a key file that others may read, or that holds no key, is refused") {
  const TempFolder folder;
  const std::string path = folder.file("secret.key");
  REQUIRE(load_or_make_key(path).has_value());
  REQUIRE(::chmod(path.c_str(), 0640) == 0);
  const auto open_to_all = load_or_make_key(path);
  REQUIRE_FALSE(open_to_all.has_value());
  CHECK(open_to_all.error().message.find("chmod 600") != std::string::npos);
  REQUIRE(::chmod(path.c_str(), 0600) == 0);
  for (const std::string& text :
       {std::string(), std::string("short\n"), std::string(64, 'g'), std::string(66, 'a')}) {
    std::ofstream(path, std::ios::trunc) << text;
    const auto refused = load_or_make_key(path);
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().message.find("aaaa") == std::string::npos);
  }
}

}  // namespace
}  // namespace kavach::http
