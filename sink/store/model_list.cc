#include "sink/store/model_list.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <vector>

namespace kavach::sink {
namespace {

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<unsigned char>(c));
    } else {
      out.push_back(c);
    }
  }
  out.push_back('"');
  return out;
}

// The strings of the array, still quoted and escaped. Equal strings have equal encodings, so nothing needs to
// be decoded. What is not an array of strings yields what was readable of it.
std::vector<std::string> encoded_elements(std::string_view array) {
  std::vector<std::string> elements;
  for (std::size_t i = 0; i < array.size(); ++i) {
    if (array[i] != '"') continue;
    std::size_t end = i + 1;
    while (end < array.size() && array[end] != '"') end += array[end] == '\\' ? 2 : 1;
    if (end >= array.size()) break;
    elements.emplace_back(array.substr(i, end + 1 - i));
    i = end;
  }
  return elements;
}

}  // namespace

std::string merge_model_list(std::string_view stored, std::span<const std::string_view> models) {
  std::vector<std::string> elements = encoded_elements(stored);
  for (const std::string_view model : models) {
    if (elements.size() >= kRunModelsMax) break;
    std::string element = json_string(model);
    const auto place = std::lower_bound(elements.begin(), elements.end(), element);
    if (place == elements.end() || *place != element) elements.insert(place, std::move(element));
  }
  return fmt::format("[{}]", fmt::join(elements, ","));
}

}  // namespace kavach::sink
