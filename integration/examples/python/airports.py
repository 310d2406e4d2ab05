"""The one model of this app: its table, as JSON rows. Put your own here.

Rows cross between JSON and columns inside Postgres, whose jsonb keeps every digit of a number. They
come back as text, so that the driver does not parse them into doubles.
"""

import psycopg
import simplejson
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from refusal import Refusal

# The columns that callers may write, besides `id`.
FIELDS = ("name", "city", "state", "country", "latitude", "longitude")
COLUMNS = ", ".join(FIELDS)
# A row, as the coordinator sees it.
ROW = "(to_jsonb(airports) - 'archived_at')::text"


def check_model(model: str) -> None:
    if model != "airports":
        raise Refusal(422, "model_unknown", f"no model {model}")


def parse(text: str) -> dict:
    return simplejson.loads(text, use_decimal=True)


def write(value: object) -> str:
    return simplejson.dumps(value, use_decimal=True)


async def load(pool: AsyncConnectionPool, id: str) -> dict | None:
    async with pool.connection() as connection:
        return await one(connection, f"SELECT {ROW} FROM airports WHERE id = %s", (id,))


async def insert(connection: AsyncConnection, id: str, fields: dict) -> dict:
    check_fields(fields)
    sql = f"""
        INSERT INTO airports (id, {COLUMNS})
        SELECT %s, {COLUMNS} FROM jsonb_populate_record(NULL::airports, %s::jsonb)
        ON CONFLICT DO NOTHING RETURNING {ROW}
    """
    row = await one(connection, sql, (id, write(fields)))
    if row is None:
        raise Refusal(409, "entity_exists", f"{id} exists")
    return row


async def update(connection: AsyncConnection, id: str, fields: dict) -> dict:
    check_fields(fields)
    # Fields that are not named come from the row itself.
    sql = f"""
        UPDATE airports
        SET ({COLUMNS}) = (SELECT {COLUMNS} FROM jsonb_populate_record(airports, %s::jsonb))
        WHERE id = %s RETURNING {ROW}
    """
    return found(id, await one(connection, sql, (write(fields), id)))


async def archive(connection: AsyncConnection, id: str, archived: bool) -> dict:
    sql = f"""
        UPDATE airports SET archived_at = CASE WHEN %s THEN now() END
        WHERE id = %s RETURNING {ROW}
    """
    return found(id, await one(connection, sql, (archived, id)))


async def delete(connection: AsyncConnection, id: str) -> None:
    """A row that is not there stays so: no fault."""
    await connection.execute("DELETE FROM airports WHERE id = %s", (id,))


async def one(connection: AsyncConnection, sql: str, values: tuple) -> dict | None:
    try:
        cursor = await connection.execute(sql, values)
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        # A value that its column does not take is the caller's fault; anything else is trouble.
        raise Refusal(422, "field_invalid", str(error)) from error
    row = await cursor.fetchone()
    return None if row is None else parse(row[0])


def found(id: str, row: dict | None) -> dict:
    if row is None:
        raise Refusal(404, "entity_not_found", f"no row {id}")
    return row


def check_fields(fields: dict) -> None:
    for field in fields:
        if field != "id" and field not in FIELDS:
            raise Refusal(422, "field_unknown", f"airports have no {field}")
