#include "http/outbound/secret_box.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <system_error>

#include "engine/check.h"
#include "engine/ids.h"
#include "http/outbound/base64.h"

namespace kavach::http {
namespace {

constexpr std::string_view kVersion = "k1.";
constexpr std::size_t kKeyBytes = 32;
constexpr std::size_t kNonceBytes = 12;
constexpr std::size_t kTagBytes = 16;
constexpr std::size_t kKeyIdBytes = 4;

const unsigned char* bytes_of(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}
unsigned char* bytes_of(std::string& text) {
  return reinterpret_cast<unsigned char*>(text.data());
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// What is derived from: 64 hexadecimal digits are bytes, anything else is itself.
std::string key_material(std::string_view key) {
  if (key.size() != 2 * kKeyBytes ||
      std::any_of(key.begin(), key.end(), [](char c) { return hex_digit(c) < 0; }))
    return std::string(key);
  std::string bytes;
  for (std::size_t i = 0; i < key.size(); i += 2)
    bytes.push_back(static_cast<char>(hex_digit(key[i]) * 16 + hex_digit(key[i + 1])));
  return bytes;
}

// `purpose` keeps apart what is derived from one secret.
void derive(std::string_view material, std::string_view purpose, unsigned char* out, std::size_t size) {
  struct Free {
    void operator()(EVP_PKEY_CTX* context) const noexcept { EVP_PKEY_CTX_free(context); }
  };
  const std::unique_ptr<EVP_PKEY_CTX, Free> context(EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, nullptr));
  const bool done =
      context != nullptr && EVP_PKEY_derive_init(context.get()) == 1 &&
      EVP_PKEY_CTX_set_hkdf_md(context.get(), EVP_sha256()) == 1 &&
      EVP_PKEY_CTX_set1_hkdf_key(context.get(), bytes_of(material), static_cast<int>(material.size())) == 1 &&
      EVP_PKEY_CTX_add1_hkdf_info(context.get(), bytes_of(purpose), static_cast<int>(purpose.size())) == 1 &&
      EVP_PKEY_derive(context.get(), out, &size) == 1;
  KAVACH_CHECK(done, "HKDF failed");
}

struct FreeCipher {
  void operator()(EVP_CIPHER_CTX* context) const noexcept { EVP_CIPHER_CTX_free(context); }
};
using CipherContext = std::unique_ptr<EVP_CIPHER_CTX, FreeCipher>;

class Descriptor {
 public:
  explicit Descriptor(int descriptor) noexcept : descriptor_(descriptor) {}
  ~Descriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const noexcept { return descriptor_; }

 private:
  int descriptor_;
};

Failure file_failure(const std::string& path, std::string_view what, int error) {
  return failure(fmt::format("{}: {}: {}", path, what, error_text(error)));
}

Result<std::string> read_key(const std::string& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return file_failure(path, "cannot be opened", errno);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return file_failure(path, "cannot be read", errno);
  if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0)
    return failure(path + ": holds a key, and others than its owner may read it (chmod 600)");
  std::string key(2 * kKeyBytes + 1, '\0');
  const ssize_t got = ::read(file.get(), key.data(), key.size());
  if (got < 0) return file_failure(path, "cannot be read", errno);
  key.resize(static_cast<std::size_t>(got));
  if (key.ends_with('\n')) key.pop_back();
  if (key_material(key).size() != kKeyBytes || key.size() != 2 * kKeyBytes)
    return failure(path + ": is no key of 64 hexadecimal digits");
  return Result<std::string>(boost::system::in_place_value, std::move(key));
}

// Under its name the file is whole from the first moment, and one that is there stays.
Status make_key(const std::string& path) {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  if (error) return failure(fmt::format("{}: cannot be created: {}", path, error.message()));
  std::array<std::uint8_t, kKeyBytes> bytes{};
  fill_secret_random(bytes.data(), bytes.size());
  const std::string text = to_hex(bytes.data(), bytes.size()) + "\n";
  std::array<std::uint8_t, 8> name{};
  fill_secret_random(name.data(), name.size());
  const std::string draft = fmt::format("{}.{}", path, to_hex(name.data(), name.size()));
  const Descriptor file(::open(draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR));
  if (file.get() < 0) return file_failure(path, "cannot be created", errno);
  const bool written = ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
                       ::fsync(file.get()) == 0;
  const bool named = written && (::link(draft.c_str(), path.c_str()) == 0 || errno == EEXIST);
  const int why = errno;
  ::unlink(draft.c_str());
  if (!named) return file_failure(path, "cannot be written", why);
  return {};
}

}  // namespace

SecretBox::SecretBox(std::string_view key) {
  KAVACH_CHECK(!key.empty(), "a key must not be empty");
  std::string material = key_material(key);
  derive(material, "kavach secret box", key_.data(), key_.size());
  std::array<std::uint8_t, kKeyIdBytes> id{};
  derive(material, "kavach secret box: name of the key", id.data(), id.size());
  key_id_ = to_hex(id.data(), id.size());
  OPENSSL_cleanse(material.data(), material.size());
}

SecretBox::~SecretBox() {
  OPENSSL_cleanse(key_.data(), key_.size());
}

std::string SecretBox::seal(std::string_view text) const {
  const std::string prefix = fmt::format("{}{}.", kVersion, key_id_);
  std::string sealed(kNonceBytes + text.size() + kTagBytes, '\0');
  unsigned char* const nonce = bytes_of(sealed);
  unsigned char* const cipher = nonce + kNonceBytes;
  fill_secret_random(nonce, kNonceBytes);
  const CipherContext context(EVP_CIPHER_CTX_new());
  int size = 0;
  const bool done =
      context != nullptr &&
      EVP_EncryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, key_.data(), nonce) == 1 &&
      EVP_EncryptUpdate(context.get(), nullptr, &size, bytes_of(prefix), static_cast<int>(prefix.size())) ==
          1 &&
      EVP_EncryptUpdate(context.get(), cipher, &size, bytes_of(text), static_cast<int>(text.size())) == 1 &&
      EVP_EncryptFinal_ex(context.get(), cipher + text.size(), &size) == 1 &&
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_GET_TAG, static_cast<int>(kTagBytes),
                          cipher + text.size()) == 1;
  KAVACH_CHECK(done, "AES-GCM failed");
  return prefix + to_base64(sealed);
}

Result<std::string> SecretBox::open(std::string_view sealed) const {
  const std::size_t dot = sealed.find('.', kVersion.size());
  if (!sealed.starts_with(kVersion) || dot == std::string_view::npos)
    return failure("this is no sealed text");
  const std::string_view key_id = sealed.substr(kVersion.size(), dot - kVersion.size());
  if (key_id != key_id_) {
    return passing_failure(
        fmt::format("sealed with another key than this node's {}: control.secret_key must be "
                    "the same on all nodes, and stay",
                    key_id_));
  }
  const std::string_view prefix = sealed.substr(0, dot + 1);
  auto bytes = from_base64(sealed.substr(dot + 1));
  if (!bytes || bytes->size() < kNonceBytes + kTagBytes) return failure("the sealed text is damaged");
  const std::size_t text_size = bytes->size() - kNonceBytes - kTagBytes;
  unsigned char* const nonce = bytes_of(*bytes);
  unsigned char* const cipher = nonce + kNonceBytes;
  std::string text(text_size, '\0');
  const CipherContext context(EVP_CIPHER_CTX_new());
  int size = 0;
  const bool done =
      context != nullptr &&
      EVP_DecryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, key_.data(), nonce) == 1 &&
      EVP_DecryptUpdate(context.get(), nullptr, &size, bytes_of(prefix), static_cast<int>(prefix.size())) ==
          1 &&
      EVP_DecryptUpdate(context.get(), bytes_of(text), &size, cipher, static_cast<int>(text_size)) == 1 &&
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_SET_TAG, static_cast<int>(kTagBytes),
                          cipher + text_size) == 1 &&
      EVP_DecryptFinal_ex(context.get(), bytes_of(text) + text_size, &size) == 1;
  if (!done) return failure("the sealed text is damaged");
  return Result<std::string>(boost::system::in_place_value, std::move(text));
}

Result<std::string> load_or_make_key(const std::string& path) {
  if (::access(path.c_str(), F_OK) != 0) {
    if (auto made = make_key(path); !made) return made.error();
  }
  return read_key(path);
}

}  // namespace kavach::http
