"""Serves the app on a loopback port; prints where, as one line of JSON, once it does."""

import json
import os
import socket

import uvicorn


class Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if sockets and self.started:
            address, port = sockets[0].getsockname()
            print(json.dumps({"listen": f"{address}:{port}"}), flush=True)


def main() -> None:
    listener = socket.create_server(("127.0.0.1", int(os.environ.get("PORT", "8080"))))
    Server(uvicorn.Config("app:app", log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
