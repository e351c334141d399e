"""The ingest endpoint's request model, written as the original service would: FastAPI with Pydantic v2.

Kavach promises its error bodies byte for byte, so the promise is held against the thing itself rather than
against a copy of its messages.
"""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import FastAPI
from pydantic import AfterValidator, BaseModel, Field

TOKENS_MAX = 2**63 - 1
COST_MAX = 9_000_000_000


def check_timestamp(text: str) -> str:
    """ISO 8601 as far as the tests need it: what a moment is, is tested in C++ (tests/engine/timestamp_test.cc)."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("Invalid timestamp format. Use ISO 8601.") from None
    return text


Name = Annotated[str, Field(min_length=1, max_length=255)]
Tokens = Annotated[int, Field(ge=0, le=TOKENS_MAX)]


class Event(BaseModel):
    agent_name: Name
    provider: Annotated[str, Field(min_length=1, max_length=64)]
    model: Name
    input_tokens: Tokens
    output_tokens: Tokens
    cost: Annotated[float, Field(ge=0, le=COST_MAX, allow_inf_nan=False)]
    timestamp: Annotated[str, AfterValidator(check_timestamp)]
    duration_ms: Tokens = 0
    idempotency_key: Annotated[str, Field(max_length=255)] | None = None
    run_id: Annotated[str, Field(max_length=255)] | None = None
    prompt: str | None = None
    status: Literal["success", "error"] | None = None
    partial: bool = False


class Batch(BaseModel):
    events: Annotated[list[Event], Field(min_length=1, max_length=1000)]


# A missing Content-Type counts as JSON (contract: older clients send none).
app = FastAPI(strict_content_type=False)


@app.post("/v1/ingest", status_code=202)
async def ingest(batch: Batch) -> dict[str, int]:
    return {"accepted": len(batch.events)}
