"""The feed of changes."""

from psycopg_pool import AsyncConnectionPool

import airports

MAX_LIMIT = 1_000


async def read(pool: AsyncConnectionPool, cursor: str | None, limit: int | None) -> dict:
    """Answers the changes after a cursor, which is the number of the last event that was read.

    Numbers are given out before transactions commit, so a lower one may appear late; the
    coordinator reads again from an older cursor now and then, and knows events by their id.
    """
    after = int(cursor) if cursor and cursor.isdecimal() and len(cursor) < 19 else 0
    sql = """
        SELECT id, (jsonb_strip_nulls(jsonb_build_object(
            'id', id::text,
            'model', 'airports',
            'entityId', entity_id,
            'type', type,
            'clientTxId', client_tx_id,
            'correlationId', client_tx_id,
            'occurredAt', occurred_at
        )) || CASE WHEN data IS NULL THEN '{}' ELSE jsonb_build_object('data', data) END)::text
        FROM outbox WHERE id > %s ORDER BY id LIMIT %s
    """
    async with pool.connection() as connection:
        found = await connection.execute(sql, (after, min(max(int(limit or 100), 1), MAX_LIMIT)))
        rows = await found.fetchall()
    answer: dict = {"events": [airports.parse(event) for _, event in rows]}
    if rows:
        answer["nextCursor"] = str(rows[-1][0])
    return answer
