"""One signed endpoint in front of a database of your own, to copy from.

The order of things is what matters. The signature is verified over the raw body before anything is
parsed and before any transaction opens. A commit, its place in the ledger, its rows and its events
are one transaction, so that it happens once however often it is sent (`commit.py`). A refusal is an
answer with a code, and final; trouble is a bare 500, which is retried.
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import simplejson
from fastapi import FastAPI, Request, Response
from psycopg_pool import AsyncConnectionPool
from standardwebhooks import Webhook, WebhookVerificationError

import airports
import commit
import events
import listing
from refusal import Refusal

TABLES = Path(__file__).with_name("tables.sql")
BODY_LIMIT = 16 << 20  # More than the largest commit: 500 operations share one request.

pool = AsyncConnectionPool(os.environ["DATABASE_URL"], min_size=1, max_size=20, open=False)
# Bytes, not str: the library takes a str for base64, and an API key is none.
webhook = Webhook(os.environ["ABLO_API_KEY"].encode())


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with pool:
        async with pool.connection() as connection:
            await connection.execute(TABLES.read_text())
        yield


app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)


@app.post("/ablo")
async def receive(request: Request) -> Response:
    try:
        body = await read(request)
        verify(request, body)
        return answer(200, await dispatch(parse(body)))
    except Refusal as refusal:
        return answer(refusal.status, {"error": refusal.code, "message": refusal.message})
    except Exception:
        logging.exception("a request failed")
        return Response(status_code=500)


async def read(request: Request) -> bytes:
    """The body, raw: a signature is over bytes, not over what they mean."""
    body = bytearray()
    too_large = False
    async for chunk in request.stream():
        # It is read to its end, so that the answer arrives.
        too_large = too_large or len(body) + len(chunk) > BODY_LIMIT
        if not too_large:
            body += chunk
    if too_large:
        raise Refusal(413, "body_too_large")
    return bytes(body)


def verify(request: Request, body: bytes) -> None:
    """Accepts a body whose signature was made with the key within the last five minutes."""
    try:
        webhook.verify(body, dict(request.headers), json_parse=False)
    except WebhookVerificationError as error:
        expired = "timestamp" in str(error)
        code = "source_timestamp_expired" if expired else "source_signature_invalid"
        raise Refusal(401, code, str(error)) from error
    except ValueError as error:  # Headers that are not even base64, a body that is not UTF-8.
        raise Refusal(401, "source_signature_invalid", str(error)) from error


def parse(body: bytes) -> dict:
    """Numbers become decimals that keep their digits, not doubles."""
    try:
        return simplejson.loads(body, use_decimal=True)
    except ValueError as error:
        raise Refusal(400, "source_commit_invalid", str(error)) from error


async def dispatch(request: dict) -> dict:
    match request:
        case {"type": "commit", "clientTxId": str(), "intentHash": str(), "operations": list()}:
            return await commit.apply(pool, request)
        case {"type": "load", "model": str(model), "id": str(id)}:
            airports.check_model(model)
            return {"row": await airports.load(pool, id)}
        case {"type": "list", "model": str(model)}:
            airports.check_model(model)
            return await listing.page(pool, request.get("query", {}))
        case {"type": "events"}:
            return await events.read(pool, request.get("cursor"), request.get("limit"))
    raise Refusal(400, "source_commit_invalid", "not a request that this endpoint knows")


def answer(status: int, body: dict) -> Response:
    text = simplejson.dumps(body, use_decimal=True, ensure_ascii=False)
    return Response(text, status, media_type="application/json")
