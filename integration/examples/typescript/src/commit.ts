// Applies a commit once.

import { parse, stringify } from "lossless-json";
import type { Pool, PoolClient } from "pg";

import { archive, checkModel, insert, remove, update } from "./airports.js";
import { Refusal, type Commit, type Operation, type Row } from "./wire.js";

/**
 * Applies a commit, or answers what it came to when it was applied before. A refusal leaves nothing
 * behind, not even in the ledger.
 */
export async function applyCommit(pool: Pool, commit: Commit): Promise<object> {
  if (!commit.clientTxId || !commit.intentHash || !Array.isArray(commit.operations)) {
    throw new Refusal(400, "source_commit_invalid", "clientTxId, intentHash or operations missing");
  }
  return transaction(pool, async (client) => {
    if (!(await enter(client, commit))) return replay(client, commit);
    const deltas: Row[] = [];
    for (const operation of commit.operations) deltas.push(await perform(client, operation));
    const answer = { deltas };
    await client.query("UPDATE coordinator_commits SET answer = $2 WHERE client_tx_id = $1", [
      commit.clientTxId,
      stringify(answer),
    ]);
    return answer;
  });
}

/**
 * Takes the commit's place in the ledger; says whether it was free. While another copy of the
 * commit is being applied, this waits for its end.
 */
async function enter(client: PoolClient, commit: Commit): Promise<boolean> {
  const entered = await client.query(
    `INSERT INTO coordinator_commits (client_tx_id, intent_hash) VALUES ($1, $2)
     ON CONFLICT DO NOTHING`,
    [commit.clientTxId, commit.intentHash],
  );
  // The outbox's trigger reads this; it lasts as long as the transaction.
  await client.query("SELECT set_config('coordinator.client_tx_id', $1, true)", [
    commit.clientTxId,
  ]);
  return entered.rowCount === 1;
}

async function replay(client: PoolClient, commit: Commit): Promise<object> {
  const { rows } = await client.query(
    "SELECT intent_hash, answer::text FROM coordinator_commits WHERE client_tx_id = $1",
    [commit.clientTxId],
  );
  if (rows[0].intent_hash !== commit.intentHash) {
    const message = `${commit.clientTxId} was used for another intent`;
    throw new Refusal(409, "idempotency_conflict", message);
  }
  return parse(rows[0].answer) as object;
}

async function perform(client: PoolClient, operation: Operation): Promise<Row> {
  const { type, model, id, input = {}, transactionId } = operation;
  checkModel(model);
  const delta: Row = { model, id, type };
  if (transactionId !== undefined) delta.transactionId = transactionId;
  switch (type) {
    case "CREATE":
      return { ...delta, data: await insert(client, id, input) };
    case "UPDATE":
      return { ...delta, data: await update(client, id, input) };
    case "ARCHIVE":
    case "UNARCHIVE":
      return { ...delta, data: await archive(client, id, type === "ARCHIVE") };
    case "DELETE":
      await remove(client, id);
      return delta;
    default:
      throw new Refusal(400, "source_commit_invalid", "no such type of operation");
  }
}

async function transaction<T>(pool: Pool, work: (client: PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  let broken: Error | undefined;
  try {
    await client.query("BEGIN");
    const result = await work(client);
    await client.query("COMMIT");
    return result;
  } catch (error) {
    await client.query("ROLLBACK").catch((failed: Error) => (broken = failed));
    throw error;
  } finally {
    // A connection that could not roll back is closed, not used again.
    client.release(broken);
  }
}
