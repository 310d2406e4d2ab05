"""Rows by condition, a page at a time."""

from psycopg_pool import AsyncConnectionPool

from airports import FIELDS, ROW, parse, write
from refusal import Refusal

MAX_LIMIT = 1_000
COMPARISONS = ("=", "!=", "<", "<=", ">", ">=", "LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE")


async def page(pool: AsyncConnectionPool, query: dict) -> dict:
    """Answers one page.

    The cursor counts the rows before it: rows that come or go between two pages shift the second. A
    feed of changes is what `events` is for.
    """
    limit = min(max(int(query.get("limit", 100)), 1), MAX_LIMIT)
    cursor = query.get("cursor", "0")
    if not (cursor.isdecimal() and len(cursor) < 10):
        raise invalid("the cursor is none of ours")
    skip = int(cursor)
    wanted, values = ["archived_at IS NULL"], []
    for condition in query.get("where", []):
        sql, value = translate(condition)
        wanted.append(sql)
        values += value
    order = "id"
    if query.get("orderBy"):
        direction = "DESC" if query.get("order") == "desc" else "ASC"
        order = f"{column(query['orderBy'])} {direction}, id"
    sql = f"""
        SELECT {ROW} FROM airports WHERE {" AND ".join(wanted)}
        ORDER BY {order} LIMIT %s OFFSET %s
    """
    async with pool.connection() as connection:
        # One row more than asked for tells whether there is a next page.
        found = await connection.execute(sql, (*values, limit + 1, skip))
        rows = [parse(row) for (row,) in await found.fetchall()]
    if len(rows) <= limit:
        return {"rows": rows}
    return {"rows": rows[:limit], "nextCursor": str(skip + limit)}


def translate(condition: list) -> tuple[str, list]:
    """A condition's SQL and its values, which go beside the statement, never into it."""
    match condition:
        case [str(field), value]:
            operator = "="
        case [str(field), str(operator), value]:
            pass
        case _:
            raise invalid("a condition is [field, value] or [field, operator, value]")
    name = column(field)
    cast = "numeric" if name in ("latitude", "longitude") else "text"
    if operator in COMPARISONS:
        # `#>> '{}'` is the value as text, without the quotes of a JSON string.
        return f"{name} {operator} (%s::jsonb #>> '{{}}')::{cast}", [write(value)]
    if operator in ("IN", "NOT IN"):
        items = "jsonb_array_elements_text(%s::jsonb)"
        values = value if isinstance(value, list) else []
        return f"{name} {operator} (SELECT value::{cast} FROM {items} AS value)", [write(values)]
    if operator in ("IS", "IS NOT") and value is None:
        return f"{name} {operator} NULL", []
    raise invalid("an operator that airports do not know")


def column(field: str) -> str:
    """Names go into the statement as they are, so only known ones do."""
    if field == "id" or field in FIELDS:
        return field
    raise invalid("a field that airports do not have")


def invalid(message: str) -> Refusal:
    return Refusal(400, "query_invalid", message)
