#include "http/control/pricing.h"

#include <fmt/format.h>

#include <toml++/toml.h>
#include <algorithm>
#include <chrono>
#include <map>
#include <optional>

#include "engine/calendar.h"
#include "http/control/default_pricing.h"
#include "http/control/endpoint.h"
#include "http/control/passwords.h"

namespace kavach::http {
namespace {

constexpr double kPricePer1kMax = 10;

struct Model {
  std::string provider;
  double input = 0;
  double output = 0;
};

// Reads one file, and gathers everything that is wrong with it.
class Reader {
 public:
  explicit Reader(std::string name) : name_(std::move(name)) {}

  void read(const toml::table& root) {
    for (const auto& [key, node] : root) {
      const toml::table* const table = node.as_table();
      if (key.str() == "updated") {
        read_date(node);
      } else if (table == nullptr) {
        problem(node, key.str(), "unknown key (known: updated, aliases, and a table for each provider)");
      } else if (key.str() == "aliases") {
        for (const auto& [alias, target] : *table) read_alias(alias.str(), target);
      } else {
        for (const auto& [model, prices] : *table) read_model(key.str(), model.str(), prices);
      }
    }
    for (const auto& [alias, target] : aliases_) {
      if (!models_.contains(target->get())) problem(*target, alias, "there is no such model");
      if (models_.contains(alias)) problem(*target, alias, "is a model's own name");
    }
    if (!updated_) problems_ += fmt::format("{}: updated: missing, the date of the prices\n", name_);
    if (models_.empty()) problems_ += fmt::format("{}: no model in it\n", name_);
  }

  std::string take_problems() {
    if (!problems_.empty()) problems_.pop_back();
    return std::move(problems_);
  }

  std::string render() const {
    JsonOut out;
    out.begin().key("pricing").begin();
    for (const auto& [name, model] : models_) {
      out.key(name).begin().number("input", model.input).number("output", model.output);
      out.number("input_per_1k", model.input).number("output_per_1k", model.output);
      out.text("provider", model.provider).end();
    }
    out.end().key("models").begin_list();
    for (const auto& [name, model] : models_) {
      out.begin().text("model", name).text("provider", model.provider);
      out.number("input", model.input).number("output", model.output);
      out.number("input_per_1k", model.input).number("output_per_1k", model.output).end();
    }
    out.end_list().key("aliases").begin();
    for (const auto& [alias, target] : aliases_) out.text(alias, target->get());
    out.end().text("unit", "usd_per_1k_tokens").text("source", "database").time("last_updated", updated_);
    return out.end().take();
  }

 private:
  void problem(const toml::node& node, std::string_view key, std::string_view text) {
    const auto& begin = node.source().begin;
    problems_ += fmt::format("{}:{}:{}: {}: {}\n", name_, begin.line, begin.column, key, text);
  }

  void read_date(const toml::node& node) {
    const auto date = node.value_exact<toml::date>();
    if (!date) return problem(node, "updated", "must be a date");
    const std::chrono::year_month_day day{std::chrono::year(date->year), std::chrono::month(date->month),
                                          std::chrono::day(date->day)};
    updated_ = start_of_day(std::chrono::sys_days(day).time_since_epoch().count());
  }

  void read_alias(std::string_view alias, const toml::node& node) {
    if (const auto* const target = node.as_string()) {
      aliases_.emplace(alias, target);
    } else {
      problem(node, alias, "must be a model's name");
    }
  }

  void read_model(std::string_view provider, std::string_view name, const toml::node& node) {
    const toml::table* const table = node.as_table();
    if (table == nullptr) return problem(node, name, "must be { input = ..., output = ... }");
    for (const auto& [key, value] : *table) {
      if (key.str() != "input" && key.str() != "output")
        problem(value, name, fmt::format("{}: unknown key (known: input, output)", key.str()));
    }
    Model model{.provider = std::string(provider)};
    if (!read_price(*table, name, "input", model.input) || !read_price(*table, name, "output", model.output))
      return;
    if (!models_.emplace(name, std::move(model)).second) problem(node, name, "is there twice");
  }

  bool read_price(const toml::table& table, std::string_view name, std::string_view key, double& price) {
    const toml::node* const node = table.get(key);
    const auto value = node != nullptr && node->is_number() ? node->value<double>() : std::nullopt;
    if (value && *value >= 0 && *value <= kPricePer1kMax) {
      price = *value;
      return true;
    }
    problem(node != nullptr ? *node : table, name,
            fmt::format("{} must be a number in 0..{}, dollars per 1,000 tokens", key, kPricePer1kMax));
    return false;
  }

  const std::string name_;
  std::string problems_;
  std::optional<WallMicros> updated_;
  std::map<std::string, Model, std::less<>> models_;
  std::map<std::string, const toml::value<std::string>*, std::less<>> aliases_;  // into the document
};

// --- the endpoint ------------------------------------------------------------------------------------------

constexpr Schema kAny{"PriceMap", {}};
constexpr Field kRowFields[] = {{.name = "model", .required = true},
                                {.name = "provider", .required = true},
                                {.name = "input", .kind = FieldKind::kNumber, .required = true},
                                {.name = "output", .kind = FieldKind::kNumber, .required = true},
                                {.name = "input_per_1k", .kind = FieldKind::kNumber, .required = true},
                                {.name = "output_per_1k", .kind = FieldKind::kNumber, .required = true}};
constexpr Schema kRow{"ModelPrice", kRowFields};
constexpr Field kListFields[] = {
    {.name = "pricing", .kind = FieldKind::kObject, .required = true, .item = &kAny, .help = "By model"},
    {.name = "models", .kind = FieldKind::kList, .required = true, .item = &kRow},
    {.name = "aliases", .kind = FieldKind::kObject, .required = true, .item = &kAny},
    {.name = "unit", .required = true},
    {.name = "source", .required = true},
    {.name = "last_updated", .kind = FieldKind::kTimestamp, .required = true}};
constexpr Schema kList{"Pricing", kListFields};

Outcome show(Call& call) {
  const auto prices = call.services.prices.get();
  std::string headers = fmt::format("Cache-Control: public, max-age=300\r\nETag: {}\r\n", prices->etag);
  if (names_etag(call.if_none_match, prices->etag))
    return Reply{.status = 304, .headers = std::move(headers)};
  return Reply{.body = prices->body, .headers = std::move(headers)};
}

constexpr Endpoint kEndpoints[] = {{.method = Method::kGet,
                                    .path = "/v1/pricing",
                                    .tag = "pricing",
                                    .summary = "What models cost",
                                    .access = Access::kPublic,
                                    .reply = &kList,
                                    .run = show}};

}  // namespace

std::span<const Endpoint> pricing_endpoints() {
  return kEndpoints;
}

Result<PriceList> PriceList::load(const std::string& path) {
  const std::string name = path.empty() ? "configs/pricing.toml" : path;
  Reader reader(name);
  try {
    const toml::table root = path.empty() ? toml::parse(kDefaultPricing, name) : toml::parse_file(path);
    reader.read(root);
    std::string problems = reader.take_problems();
    if (!problems.empty()) return failure(std::move(problems));
    std::string body = reader.render();
    std::string etag = fmt::format("\"{}\"", digest_hex(body).substr(0, 32));
    return PriceList{.body = std::move(body), .etag = std::move(etag)};
  } catch (const toml::parse_error& error) {
    const auto& begin = error.source().begin;
    return failure(fmt::format("{}:{}:{}: {}", name, begin.line, begin.column, error.description()));
  }
}

bool names_etag(std::string_view if_none_match, std::string_view etag) noexcept {
  while (!if_none_match.empty()) {
    std::string_view tag = if_none_match.substr(0, if_none_match.find(','));
    if_none_match.remove_prefix(std::min(if_none_match.size(), tag.size() + 1));
    while (tag.starts_with(' ') || tag.starts_with('\t')) tag.remove_prefix(1);
    while (tag.ends_with(' ') || tag.ends_with('\t')) tag.remove_suffix(1);
    if (tag.starts_with("W/")) tag.remove_prefix(2);
    if (tag == "*" || tag == etag) return true;
  }
  return false;
}

}  // namespace kavach::http
