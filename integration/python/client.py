"""A front-end in another language: drives a coordinator over gRPC, and serves its Data Source.

    python client.py ADDRESS KEY

Needs the stubs that `grpc_tools.protoc` makes from `proto/` on PYTHONPATH. Prints `python: ok`.
"""

import json
import sys
from datetime import datetime, timezone

import grpc
from standardwebhooks import Webhook

from ablo.coordinator.v1 import coordinator_pb2 as wire
from ablo.coordinator.v1 import coordinator_pb2_grpc as services
from ablo.coordinator.v1 import data_sources_pb2 as sources
from ablo.coordinator.v1 import data_sources_pb2_grpc as sources_services
from ablo.coordinator.v1 import schemas_pb2 as schemas
from ablo.coordinator.v1 import schemas_pb2_grpc as schemas_services

from endpoint import Endpoint

PARTICIPANT = wire.Participant(id="python", kind=wire.PARTICIPANT_KIND_AGENT)
MODELS = ("notes", "contacts")


class FrontEnd:
    def __init__(self, address: str, key: str):
        channel = grpc.insecure_channel(address)
        self.metadata = (("authorization", f"Bearer {key}"),)
        self.coordinator = services.CoordinatorStub(channel)
        self.sources = sources_services.DataSourcesStub(channel)
        self.schemas = schemas_services.SchemasStub(channel)

    def register(self, url: str) -> None:
        source = sources.CreateDataSourceRequest(
            data_source_id="python", data_source=sources.DataSource(url=url)
        )
        self.sources.Create(source, metadata=self.metadata)
        shape = {
            "type": "object",
            "properties": {"title": {"type": "string"}, "weight": {"type": "number"}},
            "required": ["title"],
            "additionalProperties": False,
        }
        document = {
            "models": {
                "notes": {"backing": "managed", "schema": shape},
                "contacts": {"backing": {"dataSource": "python"}, "schema": shape},
            }
        }
        push = schemas.PushSchemaRequest(document_json=json.dumps(document).encode())
        self.schemas.Push(push, metadata=self.metadata)

    def commit(self, name: str, kind: int, model: str, id: str, input: bytes = b"") -> wire.Receipt:
        operation = wire.Operation(type=kind, model=model, id=id, input_json=input)
        request = wire.CommitRequest(
            client_tx_id=name, participant=PARTICIPANT, operations=[operation]
        )
        return self.coordinator.Commit(request, metadata=self.metadata, timeout=30)

    def load(self, model: str, id: str) -> wire.LoadResponse:
        request = wire.LoadRequest(model=model, id=id, participant=PARTICIPANT)
        return self.coordinator.Load(request, metadata=self.metadata, timeout=30)

    def list(self, model: str) -> list[dict]:
        request = wire.ListRequest(model=model, participant=PARTICIPANT)
        page = self.coordinator.List(request, metadata=self.metadata, timeout=30)
        return [json.loads(row) for row in page.rows_json]


def refusal(call, *arguments) -> grpc.StatusCode:
    try:
        call(*arguments)
    except grpc.RpcError as error:
        return error.code()
    raise AssertionError(f"{arguments} was not refused")


def same_for_either_backing(front_end: FrontEnd, model: str) -> None:
    """Writes, repeats, reads and deletes a row; `model` says where it lives."""
    create, update = wire.OPERATION_TYPE_CREATE, wire.OPERATION_TYPE_UPDATE
    arguments = (f"{model}-1", create, model, "a", b'{"title": "first", "weight": 1.50}')
    receipt = front_end.commit(*arguments)
    assert receipt.state == wire.COMMIT_STATE_CONFIRMED, receipt
    assert front_end.commit(*arguments) == receipt, "a repeated commit has the same receipt"
    other = (f"{model}-1", create, model, "a", b'{"title": "other"}')
    assert refusal(front_end.commit, *other) == grpc.StatusCode.ALREADY_EXISTS

    front_end.commit(f"{model}-2", update, model, "a", '{"title": "zweites, schöner"}'.encode())
    row = json.loads(front_end.load(model, "a").row_json)
    assert row == {"id": "a", "title": "zweites, schöner", "weight": 1.5}, row
    assert front_end.list(model) == [row]

    wrong = (f"{model}-3", update, model, "a", b'{"title": 7}')
    assert refusal(front_end.commit, *wrong) == grpc.StatusCode.INVALID_ARGUMENT

    front_end.commit(f"{model}-4", wire.OPERATION_TYPE_DELETE, model, "a")
    assert not front_end.load(model, "a").HasField("row_json")
    assert front_end.list(model) == []


def check_published_vector() -> None:
    webhook = Webhook(b"sk_test_demo_key")
    moment = datetime.fromtimestamp(1_700_000_000, tz=timezone.utc)
    signature = webhook.sign("msg_test_1", moment, '{"type":"events","limit":100}')
    assert signature == "v1,VibwdIvYCqme6wl1UJwaToCzUOfbN2013KQWBuMXvTA=", signature


def main() -> None:
    address, key = sys.argv[1:]
    check_published_vector()
    endpoint = Endpoint(key)
    front_end = FrontEnd(address, key)
    front_end.register(endpoint.url)
    for model in MODELS:
        same_for_either_backing(front_end, model)
    assert endpoint.verified >= 4, endpoint.verified
    assert endpoint.refused == [], endpoint.refused
    print("python: ok")


if __name__ == "__main__":
    main()
