"""Applies a commit once."""

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

import airports
from refusal import Refusal


async def apply(pool: AsyncConnectionPool, commit: dict) -> dict:
    """Applies a commit, or answers what it came to when it was applied before.

    A refusal leaves nothing behind, not even in the ledger.
    """
    # One transaction: it commits at the end of the block, and rolls back when that is left by an
    # exception.
    async with pool.connection() as connection:
        if not await enter(connection, commit):
            return await replay(connection, commit)
        deltas = [await perform(connection, operation) for operation in commit["operations"]]
        answer = {"deltas": deltas}
        await connection.execute(
            "UPDATE coordinator_commits SET answer = %s::jsonb WHERE client_tx_id = %s",
            (airports.write(answer), commit["clientTxId"]),
        )
        return answer


async def enter(connection: AsyncConnection, commit: dict) -> bool:
    """Takes the commit's place in the ledger; says whether it was free.

    While another copy of the commit is being applied, this waits for its end.
    """
    entered = await connection.execute(
        """
        INSERT INTO coordinator_commits (client_tx_id, intent_hash) VALUES (%s, %s)
        ON CONFLICT DO NOTHING
        """,
        (commit["clientTxId"], commit["intentHash"]),
    )
    # The outbox's trigger reads this; it lasts as long as the transaction.
    await connection.execute(
        "SELECT set_config('coordinator.client_tx_id', %s, true)", (commit["clientTxId"],)
    )
    return entered.rowcount == 1


async def replay(connection: AsyncConnection, commit: dict) -> dict:
    cursor = await connection.execute(
        "SELECT intent_hash, answer::text FROM coordinator_commits WHERE client_tx_id = %s",
        (commit["clientTxId"],),
    )
    intent_hash, answer = await cursor.fetchone()
    if intent_hash != commit["intentHash"]:
        message = f"{commit['clientTxId']} was used for another intent"
        raise Refusal(409, "idempotency_conflict", message)
    return airports.parse(answer)


async def perform(connection: AsyncConnection, operation: dict) -> dict:
    kind, id = operation["type"], operation["id"]
    airports.check_model(operation["model"])
    delta = {"model": operation["model"], "id": id, "type": kind}
    if "transactionId" in operation:
        delta["transactionId"] = operation["transactionId"]
    match kind:
        case "CREATE":
            delta["data"] = await airports.insert(connection, id, operation.get("input", {}))
        case "UPDATE":
            delta["data"] = await airports.update(connection, id, operation.get("input", {}))
        case "ARCHIVE" | "UNARCHIVE":
            delta["data"] = await airports.archive(connection, id, kind == "ARCHIVE")
        case "DELETE":
            await airports.delete(connection, id)
        case _:
            raise Refusal(400, "source_commit_invalid", f"no operation is called {kind}")
    return delta
