// Kafka records: encoding the events of a batch, one record each, as the shipper does.
#include <benchmark/benchmark.h>

#include <string>

#include "bench/support/sample.h"
#include "http/ingest/batch_parser.h"
#include "sink/kafka/record.h"

namespace kavach::bench {
namespace {

void BM_EncodeRecords(benchmark::State& state) {
  http::BatchParser parser({.batch_events_max = 1000});
  Random random(1);
  const PaddedBuffer body = padded(make_sample(100, 1).text);
  Batch batch;
  std::string arena;
  std::string decoded_texts;
  if (!parser.fast(body.view(), kSampleNow, batch, arena)) {
    state.SkipWithError("the sample is not taken");
    return;
  }
  batch.received_at = kSampleNow;
  batch.id = make_uuid7(kSampleNow, random);
  std::string value;
  for (auto _ : state) {
    for (std::size_t i = 0; i < batch.events.size(); ++i) {
      value.clear();
      sink::encode_record(batch, i, 1, 1'000'000, value);
      benchmark::DoNotOptimize(value.data());
    }
  }
  const std::string event_id_text = event_id(batch.id, 99).text();
  const std::string org = batch.org_id.text();
  sink::RecordDecoder decoder;
  Batch decoded;
  Uuid node;
  if (!decoder.decode({value, org, event_id_text, org, sink::kSchemaVersion}, decoded, node, decoded_texts) ||
      decoded.events.size() != 1 || decoded.events[0].cost != batch.events[99].cost ||
      decoded.events[0].timestamp != batch.events[99].timestamp) {
    state.SkipWithError("wrong answer: the time means nothing");
  }
  state.SetItemsProcessed(state.iterations() * 100);
}
BENCHMARK(BM_EncodeRecords);

}  // namespace
}  // namespace kavach::bench
