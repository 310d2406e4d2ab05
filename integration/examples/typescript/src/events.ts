// The feed of changes.

import { parse, type LosslessNumber } from "lossless-json";
import type { Pool } from "pg";

import { pageSize, type Row } from "./wire.js";

/**
 * Answers the changes after a cursor, which is the number of the last event that was read.
 *
 * Numbers are given out before transactions commit, so a lower one may appear late; the coordinator
 * reads again from an older cursor now and then, and knows events by their id.
 */
export async function readEvents(
  pool: Pool,
  request: { cursor?: string; limit?: LosslessNumber },
): Promise<object> {
  const after = /^\d{1,18}$/.test(request.cursor ?? "") ? request.cursor : "0";
  const { rows } = await pool.query(
    `SELECT id, (jsonb_strip_nulls(jsonb_build_object(
         'id', id::text,
         'model', 'airports',
         'entityId', entity_id,
         'type', type,
         'clientTxId', client_tx_id,
         'correlationId', client_tx_id,
         'occurredAt', occurred_at
     )) || CASE WHEN data IS NULL THEN '{}' ELSE jsonb_build_object('data', data) END)::text AS event
     FROM outbox WHERE id > $1 ORDER BY id LIMIT $2`,
    [after, pageSize(request.limit)],
  );
  const events = rows.map((row) => parse(row.event) as Row);
  const last = rows.at(-1);
  return last ? { events, nextCursor: String(last.id) } : { events };
}
