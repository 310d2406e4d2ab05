"""A customer's endpoint in another language: standard library, and the public webhook library."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError


class Endpoint:
    """Serves `POST /ablo` on a free loopback port, with its rows in memory."""

    def __init__(self, key: str):
        # Bytes, not str: the library takes a str for base64, and an API key is none.
        self.webhook = Webhook(key.encode())
        self.lock = threading.Lock()
        self.rows: dict[str, dict[str, dict]] = {}
        self.answers: dict[str, dict] = {}
        self.verified = 0
        self.refused: list[str] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                status, answer = endpoint.answer(dict(self.headers), body)
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/ablo"

    def answer(self, headers: dict, body: bytes) -> tuple[int, dict]:
        try:
            request = self.webhook.verify(body, headers)
        except WebhookVerificationError as error:
            self.refused.append(str(error))
            return 401, {"error": "source_signature_invalid", "message": str(error)}
        with self.lock:
            self.verified += 1
            match request["type"]:
                case "commit":
                    return self.commit(request)
                case "load":
                    row = self.rows.get(request["model"], {}).get(request["id"])
                    return 200, {"row": row}
                case "list":
                    rows = self.rows.get(request["model"], {})
                    limit = request.get("query", {}).get("limit", 100)
                    return 200, {"rows": [rows[id] for id in sorted(rows)][:limit]}
        return 404, {"error": "source_events_not_configured"}

    def commit(self, request: dict) -> tuple[int, dict]:
        known = self.answers.get(request["clientTxId"])
        if known is not None:
            return 200, known
        applied = []
        for operation in request["operations"]:
            rows = self.rows.setdefault(operation["model"], {})
            id, kind = operation["id"], operation["type"]
            if kind == "CREATE" and id in rows:
                return 409, {"error": "entity_exists", "message": f"{id} exists"}
            if kind == "DELETE":
                applied.append(rows.pop(id, {"id": id}))
            else:
                rows[id] = {**rows.get(id, {}), **operation.get("input", {}), "id": id}
                applied.append(rows[id])
        self.answers[request["clientTxId"]] = {"rows": applied}
        return 200, {"rows": applied}
