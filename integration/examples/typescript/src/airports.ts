// The one model of this app: its table, as JSON rows. Put your own here.
//
// Rows cross between JSON and columns inside Postgres, whose jsonb keeps every digit of a number.
// They come back as text, so that the driver does not parse them into doubles.

import { parse, stringify } from "lossless-json";
import pg from "pg";
import type { Pool, PoolClient } from "pg";

import { Refusal, type Row } from "./wire.js";

/** The columns that callers may write, besides `id`. */
export const FIELDS = ["name", "city", "state", "country", "latitude", "longitude"] as const;

/** A row, as the coordinator sees it. */
export const ROW = "(to_jsonb(airports) - 'archived_at')::text AS row";

export function checkModel(model: string): void {
  if (model !== "airports") throw new Refusal(422, "model_unknown", `no model ${model}`);
}

export async function load(pool: Pool, id: string): Promise<Row | null> {
  const found = await pool.query(`SELECT ${ROW} FROM airports WHERE id = $1`, [id]);
  return found.rows[0] ? (parse(found.rows[0].row) as Row) : null;
}

export async function insert(client: PoolClient, id: string, input: Row): Promise<Row> {
  checkFields(input);
  const columns = FIELDS.join(", ");
  const row = await one(
    client,
    `INSERT INTO airports (id, ${columns})
     SELECT $1, ${columns} FROM jsonb_populate_record(NULL::airports, $2)
     ON CONFLICT DO NOTHING RETURNING ${ROW}`,
    [id, stringify(input)],
  );
  if (!row) throw new Refusal(409, "entity_exists", `${id} exists`);
  return row;
}

export async function update(client: PoolClient, id: string, input: Row): Promise<Row> {
  checkFields(input);
  const columns = FIELDS.join(", ");
  // Fields that the input does not name come from the row itself.
  const row = await one(
    client,
    `UPDATE airports
     SET (${columns}) = (SELECT ${columns} FROM jsonb_populate_record(airports, $2))
     WHERE id = $1 RETURNING ${ROW}`,
    [id, stringify(input)],
  );
  return found(id, row);
}

export async function archive(client: PoolClient, id: string, archived: boolean): Promise<Row> {
  const row = await one(
    client,
    `UPDATE airports SET archived_at = CASE WHEN $2 THEN now() END WHERE id = $1 RETURNING ${ROW}`,
    [id, archived],
  );
  return found(id, row);
}

/** A row that is not there stays so: no fault. */
export async function remove(client: PoolClient, id: string): Promise<void> {
  await client.query("DELETE FROM airports WHERE id = $1", [id]);
}

async function one(
  client: PoolClient,
  sql: string,
  values: unknown[],
): Promise<Row | undefined> {
  try {
    const { rows } = await client.query(sql, values);
    return rows[0] && (parse(rows[0].row) as Row);
  } catch (error) {
    // A value that its column does not take is the caller's fault; anything else is trouble.
    // Class 22 is "data exception", class 23 "integrity constraint violation".
    if (error instanceof pg.DatabaseError && /^2[23]/.test(error.code ?? "")) {
      throw new Refusal(422, "field_invalid", error.message);
    }
    throw error;
  }
}

function found(id: string, row: Row | undefined): Row {
  if (!row) throw new Refusal(404, "entity_not_found", `no row ${id}`);
  return row;
}

function checkFields(input: Row): void {
  const known: readonly string[] = FIELDS;
  const unknown = Object.keys(input).find((field) => field !== "id" && !known.includes(field));
  if (unknown) throw new Refusal(422, "field_unknown", `airports have no ${unknown}`);
}
