// Model list: the column runs.models, a JSON array of the distinct models that a run has called.
//
// Only Kavach writes it, so this reads no more JSON than it writes: strings, sorted as bytes, no spaces.
// Sorted, because the list then does not depend on the order in which batches arrive.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace kavach::sink {

// A run lists this many models at most: the list is read and written with every batch of the run, and a
// client that invents a new name per call must not make that ever dearer.
inline constexpr std::size_t kRunModelsMax = 100;

// The array `stored` ("" counts as empty) with `models` added.
std::string merge_model_list(std::string_view stored, std::span<const std::string_view> models);

}  // namespace kavach::sink
