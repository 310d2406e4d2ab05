// What the coordinator sends. Fields that are not named here are ignored.

import type { LosslessNumber } from "lossless-json";

export type Json = string | LosslessNumber | boolean | null | Json[] | { [field: string]: Json };
export type Row = { [field: string]: Json };

export interface Commit {
  type: "commit";
  clientTxId: string;
  intentHash: string;
  operations: Operation[];
}

export interface Operation {
  type: "CREATE" | "UPDATE" | "DELETE" | "ARCHIVE" | "UNARCHIVE";
  model: string;
  id: string;
  input?: Row;
  transactionId?: string;
}

export interface Query {
  /** Each `[field, value]` or `[field, operator, value]`. */
  where?: Json[][];
  limit?: LosslessNumber;
  orderBy?: string;
  order?: "asc" | "desc";
  cursor?: string;
}

export type Body =
  | Commit
  | { type: "load"; model: string; id: string }
  | { type: "list"; model: string; query?: Query }
  | { type: "events"; cursor?: string; limit?: LosslessNumber };

/** The request is wrong and will be wrong again: the caller is told so, and nothing is retried. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string = code,
  ) {
    super(message);
  }
}

/** How many rows or events to answer: 1 to 1,000. */
export function pageSize(limit: LosslessNumber | undefined): number {
  const wanted = limit === undefined ? 100 : Math.trunc(Number(limit));
  return Number.isFinite(wanted) ? Math.min(Math.max(wanted, 1), 1000) : 100;
}
