// What a consumed record means: the one place where the consumer's records meet the shipper's format
// (sink/kafka/record.h).
#pragma once

#include "sink/writer/writer.h"

namespace kavach::sink {

// One thread at a time may call it.
DecodeRecord record_decoder();

}  // namespace kavach::sink
