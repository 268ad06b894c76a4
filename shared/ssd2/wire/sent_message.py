"""Messages to a core in readable form, as the device's ledger shows them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from ssd2.wire import collaboration_pb2 as pb


@dataclass(frozen=True)
class SentMessage:
    """A parsed message of collaboration.proto.

    Attributes:
        kind: "model_card", "open", "projection" or "close".
        fields: all of its fields by name, those at their default too, as protobuf puts them into JSON: numbers of 64
            bits as strings, enum values by name.
        token_ids: the tokens in it: of an open the prompt, of a projection those at +K.
    """

    kind: str
    fields: dict[str, Any]
    token_ids: list[int] = field(default_factory=list)


def decode(rpc: str, payload: bytes) -> SentMessage:
    """Parse a message to the core.

    Args:
        rpc: "GetModelCard" or "Collaborate".
        payload: the message as protobuf.
    """
    if rpc == "GetModelCard":
        return SentMessage("model_card", _fields(pb.GetModelCardRequest.FromString(payload)))
    request = pb.CollaborateRequest.FromString(payload)
    kind = request.WhichOneof("message")
    if kind == "open":
        return SentMessage(kind, _fields(request.open), [*request.open.prompt_ids])
    if kind == "projection":
        return SentMessage(kind, _fields(request.projection), [*request.projection.token_ids])
    return SentMessage("close", {})


def _fields(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
