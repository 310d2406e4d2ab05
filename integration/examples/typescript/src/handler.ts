// One signed endpoint in front of a database of your own, to copy from.
//
// The order of things is what matters. The signature is verified over the raw body before anything
// is parsed and before any transaction opens. A commit, its place in the ledger, its rows and its
// events are one transaction, so that it happens once however often it is sent (commit.ts). A
// refusal is an answer with a code, and final; trouble is a bare 500, which is retried.

import { parse, stringify } from "lossless-json";
import type { Pool } from "pg";
import { Webhook, WebhookVerificationError } from "standardwebhooks";

import { checkModel, load } from "./airports.js";
import { applyCommit } from "./commit.js";
import { readEvents } from "./events.js";
import { list } from "./list.js";
import { Refusal, type Body } from "./wire.js";

/** The endpoint. `key` is the organization's API key, as it is: `sk_…`. */
export function dataSource(pool: Pool, key: string): (request: Request) => Promise<Response> {
  // Raw: a `whsec_…` secret would be base64, an API key is not.
  const webhook = new Webhook(key, { format: "raw" });

  return async (request) => {
    try {
      if (request.method !== "POST") throw new Refusal(405, "method_not_allowed");
      const text = await request.text();
      verify(webhook, request.headers, text);
      return answer(200, await dispatch(pool, read(text)));
    } catch (error) {
      if (error instanceof Refusal) {
        return answer(error.status, { error: error.code, message: error.message });
      }
      console.error("a request failed:", error);
      return new Response(null, { status: 500 });
    }
  };
}

/** Accepts a body whose signature was made with the key within the last five minutes. */
function verify(webhook: Webhook, headers: Headers, text: string): void {
  try {
    webhook.verify(text, Object.fromEntries(headers), { jsonParse: false });
  } catch (error) {
    if (!(error instanceof WebhookVerificationError)) throw error;
    const expired = error.message.includes("timestamp");
    const code = expired ? "source_timestamp_expired" : "source_signature_invalid";
    throw new Refusal(401, code, error.message);
  }
}

/** Numbers become objects that keep their digits, not doubles: 0.1 + 0.2 is nobody's latitude. */
function read(text: string): Body {
  try {
    return parse(text) as Body;
  } catch (error) {
    throw new Refusal(400, "source_commit_invalid", String(error));
  }
}

async function dispatch(pool: Pool, body: Body): Promise<object> {
  switch (body.type) {
    case "commit":
      return applyCommit(pool, body);
    case "load":
      checkModel(body.model);
      return { row: await load(pool, body.id) };
    case "list":
      checkModel(body.model);
      return list(pool, body.query ?? {});
    case "events":
      return readEvents(pool, body);
    default:
      throw new Refusal(400, "source_commit_invalid", "no such type of request");
  }
}

function answer(status: number, body: object): Response {
  return new Response(stringify(body), {
    status,
    headers: { "content-type": "application/json" },
  });
}
