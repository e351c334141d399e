"""The ingest endpoint as a FastAPI service, for comparison: the contract's checks, limits in Redis, events to Kafka.

As fast as such a service can be made without leaving any of its work out: the route gets the raw request, Pydantic
parses and checks the body in one pass in Rust, one script call to Redis decides on the whole batch, what a key stands
for is remembered for some seconds, spend is added up here and written a few times a second, and 202 waits for the
acknowledgement of all in-sync replicas. Settings are in the environment: see Settings.
"""

import asyncio
import contextlib
import hashlib
import os
import time
import uuid
import zlib
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, NotRequired

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from fastapi import FastAPI, Request, Response
from pydantic import Field, Strict, StringConstraints, TypeAdapter, ValidationError
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError
from typing_extensions import TypedDict

BODY_BYTES_MAX = 10 << 20
PROMPT_CHARS_MAX = 2048
PROMPT_CUT = "... [truncated]"
KEY_REMEMBERED_S = 5
SPEND_WRITTEN_EVERY_S = 0.25
WEEK_S = 7 * 86400

Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Optional255 = Annotated[str, StringConstraints(max_length=255)] | None
Count = Annotated[int, Field(ge=0)]


class Event(TypedDict):
    agent_name: Name
    provider: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    model: Name
    input_tokens: Count
    output_tokens: Count
    cost: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    timestamp: Annotated[datetime, Strict()]
    duration_ms: NotRequired[Count]
    idempotency_key: NotRequired[Optional255]
    run_id: NotRequired[Optional255]
    prompt: NotRequired[str | None]
    status: NotRequired[str | None]
    partial: NotRequired[bool]


class Body(TypedDict):
    events: Annotated[list[Event], Field(min_length=1, max_length=1000)]


BODY = TypeAdapter(Body)


class Settings:
    redis_url = os.environ["PEER_REDIS_URL"]
    brokers = os.environ["PEER_BROKERS"]
    topic = os.environ["PEER_TOPIC"]
    # "batch": all events of a request in one record; "event": a record each.
    record = os.environ.get("PEER_RECORD", "batch")


@dataclass(slots=True)
class Org:
    """What a key stands for, and until when that is believed."""

    id: str
    status: str
    limits: tuple[str, str, str, str]  # events a day, events a minute, agents, dollars a day; "" is none
    until: float


redis = Redis.from_pool(BlockingConnectionPool.from_url(Settings.redis_url, max_connections=64, timeout=10))
admit = redis.register_script((Path(__file__).parent / "admit.lua").read_text())
producer: AIOKafkaProducer
orgs: dict[bytes, Org] = {}
spend: dict[tuple[str, str], float] = {}  # dollars by organization and agent that are not in Redis yet


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI):
    global producer
    producer = AIOKafkaProducer(
        bootstrap_servers=Settings.brokers, acks="all", linger_ms=5, enable_idempotence=True, max_batch_size=1 << 20,
        max_request_size=16 << 20,
    )
    await producer.start()
    writer = asyncio.create_task(write_spend())
    yield
    writer.cancel()
    await producer.stop()
    await redis.aclose()


app = FastAPI(lifespan=lifespan, openapi_url=None)


async def write_spend() -> None:
    """Adds to the counters of budgets what was spent since the last time."""
    while True:
        await asyncio.sleep(SPEND_WRITTEN_EVERY_S)
        if not spend:
            continue
        written = spend.copy()
        spend.clear()
        day = int(time.time()) // 86400
        try:
            async with redis.pipeline(transaction=False) as pipeline:
                for (org, agent), dollars in written.items():
                    pipeline.hincrbyfloat(f"spend:{org}:{day}:agents", agent, dollars)
                    pipeline.incrbyfloat(f"spend:{org}:{day}", dollars)
                    pipeline.expire(f"spend:{org}:{day}", 31 * 86400)
                    pipeline.expire(f"spend:{org}:{day}:agents", 31 * 86400)
                await pipeline.execute()
        except RedisError:
            for key, dollars in written.items():
                spend[key] = spend.get(key, 0) + dollars


def answer(status: int, content: dict, **headers: str) -> Response:
    return Response(orjson.dumps(content), status, {name.replace("_", "-"): value for name, value in headers.items()},
                    "application/json")


def unauthorized(text: str) -> Response:
    return answer(401, {"detail": text}, www_authenticate="Bearer")


def invalid(*errors: dict) -> Response:
    return answer(422, {"detail": errors})


def backpressure() -> Response:
    return answer(429, {"detail": "Try again", "reason": "backpressure"}, retry_after="1")


async def find_org(headers: dict[bytes, bytes]) -> Org | None:
    """Of the key in the headers; None when nobody has it, ValueError when there is none."""
    key = headers.get(b"x-api-key")
    if key is None:
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not key:
            raise ValueError
    digest = hashlib.sha256(key).digest()
    now = time.monotonic()
    org = orgs.get(digest)
    if org is not None and org.until > now:
        return org
    kept = await redis.hgetall(f"key:{digest.hex()}")
    if not kept:
        orgs.pop(digest, None)
        return None
    text = {name.decode(): value.decode() for name, value in kept.items()}
    limits = tuple(text.get(name, "") for name in ("events_per_day", "burst_per_minute", "max_agents", "daily_budget"))
    org = orgs[digest] = Org(text["org_id"], text["status"], limits, now + KEY_REMEMBERED_S)
    return org


def inflate(body: bytes) -> bytes | None:
    """None: it is longer than may be. Raises zlib.error."""
    inflater = zlib.decompressobj(wbits=31)
    out = inflater.decompress(body, BODY_BYTES_MAX + 1)
    if len(out) > BODY_BYTES_MAX:
        return None
    if not inflater.eof:
        raise zlib.error("it ends too early")
    return out


def group_by_agent(events: list[Event]) -> tuple[list[Event], dict[str, list[Event]]]:
    """Without what repeats a key within the batch; and what the contract has done to single fields."""
    now = datetime.now(timezone.utc)
    seen, kept, groups = set(), [], {}
    for event in events:
        key = event.get("idempotency_key")
        if key:
            if key in seen:
                continue
            seen.add(key)
        timestamp = event["timestamp"]
        if timestamp.tzinfo is None:
            timestamp = event["timestamp"] = timestamp.replace(tzinfo=timezone.utc)
        if timestamp > now:
            event["timestamp"] = now
        prompt = event.get("prompt")
        if prompt and len(prompt) > PROMPT_CHARS_MAX:
            event["prompt"] = prompt[:PROMPT_CHARS_MAX - len(PROMPT_CUT)] + PROMPT_CUT
        kept.append(event)
        group = groups.get(event["agent_name"])
        if group is None:
            groups[event["agent_name"]] = [event]
        else:
            group.append(event)
    return kept, groups


def keys_of(org: Org, now: float) -> list[str]:
    """Of the script. Idempotency keys are in a set a week, so that one is remembered for seven days at least."""
    day, week = int(now) // 86400, int(now) // WEEK_S
    return [f"rl:{org.id}:daily:{day}", f"rl:{org.id}:burst", f"agents:{org.id}", f"killed:{org.id}",
            f"spend:{org.id}:{day}", f"dedup:{org.id}:{week}", f"dedup:{org.id}:{week - 1}"]


def refusal(org: Org, reason: str, used: str) -> Response:
    now = time.time()
    midnight = (int(now) // 86400 + 1) * 86400
    ends = midnight if reason != "burst" else now + 60
    numbers = {"daily_limit": org.limits[0], "burst": org.limits[1], "org_budget_exceeded": org.limits[3]}
    texts = {"daily_limit": "Daily event limit reached", "burst": "Burst rate exceeded",
             "org_budget_exceeded": "Org budget exceeded"}
    return answer(429, {
        "detail": texts[reason], "reason": reason, "limit": float(numbers[reason]), "used": float(used), "remaining": 0,
        "resume_at": datetime.fromtimestamp(ends, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }, retry_after=str(max(1, int(ends - now))))


async def send(org: Org, events: list[Event], received_at: datetime) -> None:
    """Returns when all in-sync replicas have them."""
    headers = [("org_id", org.id.encode()), ("event_id", uuid.uuid4().bytes), ("schema_version", b"1")]
    key = org.id.encode()
    if Settings.record == "batch":
        value = orjson.dumps({"received_at": received_at, "events": events})
        await producer.send_and_wait(Settings.topic, value, key, headers=headers)
        return
    acknowledged = [
        await producer.send(Settings.topic, orjson.dumps(event | {"received_at": received_at}), key, headers=headers)
        for event in events
    ]
    await asyncio.gather(*acknowledged)


async def give_back(keys: list[str], events: list[Event]) -> None:
    """What was claimed for events that did not get into Kafka: they will be sent again."""
    async with redis.pipeline() as pipeline:
        pipeline.decrby(keys[0], len(events))
        pipeline.decrby(keys[1], len(events))
        if claimed := [event["idempotency_key"] for event in events if event.get("idempotency_key")]:
            pipeline.srem(keys[5], *claimed)
        await pipeline.execute()


async def ingest(request: Request) -> Response:
    headers = dict(request.scope["headers"])
    try:
        org = await find_org(headers)
    except ValueError:
        return unauthorized("Missing or malformed Authorization header")
    except RedisError:
        return backpressure()
    if org is None:
        return unauthorized("Invalid API key")
    if org.status in ("paused", "cancelled"):
        return answer(403, {"detail": f"Subscription is {org.status}. Reactivate to resume.",
                            "subscription_status": org.status})

    body = await request.body()
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding == b"gzip":
        try:
            body = inflate(body)
        except zlib.error:
            return answer(400, {"detail": "Invalid gzip body"})
    elif encoding != b"identity":
        return answer(415, {"detail": "Unsupported Content-Encoding"})
    if body is None or len(body) > BODY_BYTES_MAX:
        return answer(413, {"detail": "Request body too large"})
    if not headers.get(b"content-type", b"application/json").startswith(b"application/json"):
        return invalid({"type": "model_attributes_type", "loc": ["body"],
                        "msg": "Input should be a valid dictionary or object to extract fields from",
                        "input": body.decode(errors="replace")})
    try:
        sent = BODY.validate_json(body)["events"]
    except ValidationError as error:
        return invalid(*(one | {"loc": ["body", *one["loc"]]} for one in error.errors(include_url=False)))

    events, groups = group_by_agent(sent)
    now = time.time()
    keys = keys_of(org, now)
    words = [int(now), len(events), *org.limits, len(groups)]
    for name, group in groups.items():
        own = [key for event in group if (key := event.get("idempotency_key"))]
        words += (name, len(group) - len(own), len(own), *own)
    try:
        decision, *verdict = await admit(keys, words)
    except RedisError:
        return backpressure()
    if decision != b"ok":
        return refusal(org, decision.decode(), verdict[0].decode())
    rejected, duplicates, _ = verdict
    refused_events, refused_names = 0, []
    if rejected or duplicates:
        refused_names = sorted(name.decode() for name in rejected)
        refused_events = sum(event["agent_name"] in refused_names for event in sent)
        dropped = {key.decode() for key in duplicates}
        events = [event for event in events if event["agent_name"] not in refused_names
                  and event.get("idempotency_key") not in dropped]
        if refused_events == len(sent):
            return answer(429, {"detail": "Agent limit reached for tier", "reason": "tier_agent_limit",
                                "rejected_agents": refused_names}, retry_after="60")
    if events:
        try:
            await send(org, events, datetime.fromtimestamp(now, timezone.utc))
        except KafkaError:
            await give_back(keys, events)
            return backpressure()
        for event in events:
            account = (org.id, event["agent_name"])
            spend[account] = spend.get(account, 0) + event["cost"]
    return answer(202, {"accepted": len(sent) - refused_events, "rejected": refused_events, "mode": "kafka",
                        "rejected_agents": refused_names})


# Starlette's way to add a route: without the resolution of parameters, which costs as much as the rest of the framework.
app.add_route("/v1/ingest", ingest, methods=["POST"])


@app.get("/healthz")
async def healthz() -> dict:
    return {"status": "ok"}
