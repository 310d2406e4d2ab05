// Rows by condition, a page at a time.

import { parse, stringify } from "lossless-json";
import type { Pool } from "pg";

import { FIELDS, ROW } from "./airports.js";
import { Refusal, pageSize, type Json, type Query, type Row } from "./wire.js";

const COMPARISONS = [
  "=", "!=", "<", "<=", ">", ">=", "LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE",
];

/**
 * Answers one page. The cursor counts the rows before it: rows that come or go between two pages
 * shift the second. A feed of changes is what `events` is for.
 */
export async function list(pool: Pool, query: Query): Promise<object> {
  const limit = pageSize(query.limit);
  const cursor = query.cursor ?? "0";
  if (!/^\d{1,9}$/.test(cursor)) throw invalid("the cursor is none of ours");
  const values: unknown[] = [];
  const conditions = (query.where ?? []).map((it) => condition(it, values));
  const order = query.orderBy
    ? `${column(query.orderBy)} ${query.order === "desc" ? "DESC" : "ASC"}, id`
    : "id";
  // One row more than asked for tells whether there is a next page.
  values.push(limit + 1, cursor);
  const { rows } = await pool.query(
    `SELECT ${ROW} FROM airports
     WHERE ${["archived_at IS NULL", ...conditions].join(" AND ")}
     ORDER BY ${order} LIMIT $${values.length - 1} OFFSET $${values.length}`,
    values,
  );
  const page = rows.slice(0, limit).map((it) => parse(it.row) as Row);
  const more = rows.length > limit;
  return more ? { rows: page, nextCursor: String(Number(cursor) + limit) } : { rows: page };
}

/** Values go beside the statement, never into it. */
function condition(it: Json[], values: unknown[]): string {
  const [field, operator, value] = it.length === 2 ? [it[0], "=", it[1]] : it;
  if (typeof field !== "string" || typeof operator !== "string" || value === undefined) {
    throw invalid("a condition is [field, value] or [field, operator, value]");
  }
  const name = column(field);
  const type = name === "latitude" || name === "longitude" ? "numeric" : "text";
  if (COMPARISONS.includes(operator)) {
    values.push(stringify(value));
    // `#>> '{}'` is the value as text, without the quotes of a JSON string.
    return `${name} ${operator} ($${values.length}::jsonb #>> '{}')::${type}`;
  }
  if (operator === "IN" || operator === "NOT IN") {
    values.push(stringify(Array.isArray(value) ? value : []));
    const items = `jsonb_array_elements_text($${values.length}::jsonb)`;
    return `${name} ${operator} (SELECT value::${type} FROM ${items} AS value)`;
  }
  if ((operator === "IS" || operator === "IS NOT") && value === null) {
    return `${name} ${operator} NULL`;
  }
  throw invalid("an operator that airports do not know");
}

/** Names go into the statement as they are, so only known ones do. */
function column(field: string): string {
  if (field === "id" || (FIELDS as readonly string[]).includes(field)) return field;
  throw invalid("a field that airports do not have");
}

function invalid(message: string): Refusal {
  return new Refusal(400, "query_invalid", message);
}
