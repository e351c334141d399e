"""The ingest endpoint's request model, written as the original service would: FastAPI with Pydantic v2.

Kavach promises its error bodies byte for byte, so the promise is held against the thing itself rather than
against a copy of its messages. The rules that Pydantic has no words for (timestamps, long prompts) are
contract 1.3 and 2.1 once more, in another language than Kavach's.
"""

import re
from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import FastAPI
from pydantic import AfterValidator, BaseModel, Field

TOKENS_MAX = 2**63 - 1
COST_MAX = 9_000_000_000
PROMPT_CHARS_MAX = 2048
TRUNCATED = "... [truncated]"

MOMENT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?(?:[Zz]|([+-])(\d\d)(?::?(\d\d))?)?",
    re.ASCII,
)
EPOCH = datetime(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)
FIRST_MOMENT = (datetime.min - EPOCH) // MICROSECOND
LAST_MOMENT = (datetime.max - EPOCH) // MICROSECOND


def moment(text: str) -> int:
    """Microseconds since 1970 UTC; ValueError for what is no moment of the years 1 to 9999."""
    match = MOMENT.fullmatch(text)
    if match is None:
        raise ValueError("not of this form")
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    fraction, sign, offset_hours, offset_minutes = match.groups()[6:]
    micros = int((fraction or "").ljust(6, "0")[:6])
    if second == 60:  # a leap second is the next minute's first moment
        second, micros = 59, 1_000_000
    found = (datetime(year, month, day, hour, minute, second) - EPOCH) // MICROSECOND + micros
    if sign is not None:
        east = int(offset_hours) * 3600 + int(offset_minutes or 0) * 60
        if int(offset_hours) > 23 or int(offset_minutes or 0) > 59:
            raise ValueError("no such offset")
        found -= (east if sign == "+" else -east) * 1_000_000
    if not FIRST_MOMENT <= found <= LAST_MOMENT:
        raise ValueError("beyond the calendar")
    return found


def check_timestamp(text: str) -> str:
    try:
        moment(text)
    except ValueError:
        raise ValueError("Invalid timestamp format. Use ISO 8601.") from None
    return text


def cut_prompt(text: str) -> str:
    return text if len(text) <= PROMPT_CHARS_MAX else text[: PROMPT_CHARS_MAX - len(TRUNCATED)] + TRUNCATED


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
    # A limit of nothing, so that Pydantic looks at the characters: a lone surrogate has no UTF-8 to be stored.
    prompt: Annotated[str, Field(min_length=0), AfterValidator(cut_prompt)] | None = None
    status: Literal["success", "error"] | None = None
    partial: bool = False


class Batch(BaseModel):
    events: Annotated[list[Event], Field(min_length=1, max_length=1000)]


# A missing Content-Type counts as JSON (contract: older clients send none).
app = FastAPI(strict_content_type=False)


@app.post("/v1/ingest", status_code=202)
async def ingest(batch: Batch) -> Batch:
    """Answers what it understood."""
    return batch
