// A tiny Node server around the handler. The handler itself is Fetch-API: it runs as it is wherever
// a `Request` comes in and a `Response` goes out (Next.js, Hono, Bun, Deno, Cloudflare Workers).

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { readFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import pg from "pg";

import { dataSource } from "./handler.js";

const BODY_LIMIT = 16 << 20; // More than the largest commit: 500 operations share one request.

const pool = new pg.Pool({ connectionString: required("DATABASE_URL"), max: 20 });
// An idle connection that breaks is replaced; without a listener it would end the process.
pool.on("error", (error) => console.error("the database closed a connection:", error.message));
await pool.query(await readFile(new URL("../tables.sql", import.meta.url), "utf8"));
const handle = dataSource(pool, required("ABLO_API_KEY"));

const server = createServer((incoming, outgoing) => {
  serve(incoming, outgoing).catch((error) => {
    console.error("a request failed:", error);
    outgoing.destroy();
  });
});
server.listen(Number(process.env.PORT ?? 8080), "127.0.0.1", () => {
  const { address, port } = server.address() as AddressInfo;
  console.log(JSON.stringify({ listen: `${address}:${port}` }));
});
process.once("SIGTERM", () => {
  server.close(() => void pool.end());
  server.closeIdleConnections();
});

async function serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
  const body = await read(incoming);
  const response =
    body === undefined
      ? Response.json({ error: "body_too_large" }, { status: 413 })
      : await handle(
          new Request(`http://${incoming.headers.host ?? "localhost"}${incoming.url ?? "/"}`, {
            method: incoming.method ?? "GET",
            headers: Object.entries(incoming.headers).map(([name, value]) => [name, String(value)]),
            body: body.length > 0 ? body : null,
          }),
        );
  outgoing.writeHead(response.status, Object.fromEntries(response.headers));
  outgoing.end(Buffer.from(await response.arrayBuffer()));
}

/** The body; undefined when it is too long. It is read to its end, so that the answer arrives. */
async function read(incoming: IncomingMessage): Promise<Buffer<ArrayBuffer> | undefined> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of incoming as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length <= BODY_LIMIT) chunks.push(chunk);
  }
  return length <= BODY_LIMIT ? Buffer.concat(chunks) : undefined;
}

function required(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is required`);
  return value;
}
