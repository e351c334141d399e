#include "sink/writer/decode.h"

#include <memory>
#include <string>
#include <string_view>

#include "sink/kafka/record.h"

namespace kavach::sink {
namespace {

RecordView view_of(const ConsumedRecord& record) {
  RecordView view{.value = record.value(), .org_id = {}, .event_id = {}, .node_id = {}, .schema_version = {}};
  for (const auto& [name, value] : record.headers()) {
    if (name == kOrgHeader) view.org_id = value;
    if (name == kEventHeader) view.event_id = value;
    if (name == kNodeHeader) view.node_id = value;
    if (name == kVersionHeader) view.schema_version = value;
  }
  return view;
}

}  // namespace

DecodeRecord record_decoder() {
  return [decoder = std::make_shared<RecordDecoder>()](const ConsumedRecord& record, Batch& batch, Uuid& node,
                                                       std::string& arena) -> Status {
    const auto decoded = decoder->decode(view_of(record), batch, node, arena);
    if (decoded) return {};
    return failure(decoded.error().text());
  };
}

}  // namespace kavach::sink
