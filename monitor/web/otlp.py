"""Answers of OTLP/HTTP, in the encoding of the request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from monitor.web.bodies import PROTOBUF

SHOWN_REASONS: Final = 5


def answer(rejected: Sequence[str], kind: str) -> bytes:
    """ExportTraceServiceResponse: how many spans were rejected and why; empty when none was."""
    reasons = "; ".join(list(dict.fromkeys(rejected))[:SHOWN_REASONS])
    if kind != PROTOBUF:
        value: dict[str, Any] = {}
        if rejected:
            value["partialSuccess"] = {"rejectedSpans": str(len(rejected)), "errorMessage": reasons}
        return msgspec.json.encode(value)
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    response = ExportTraceServiceResponse()
    if rejected:
        response.partial_success.rejected_spans = len(rejected)
        response.partial_success.error_message = reasons
    return bytes(response.SerializeToString())


def status(message: str, kind: str) -> bytes:
    """google.rpc.Status with a message, which is its field 2: what a request that failed is answered with."""
    if kind != PROTOBUF:
        return msgspec.json.encode({"message": message})
    text = message.encode()
    length, size = len(text), bytearray()
    while length > 0x7F:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    return b"\x12" + bytes([*size, length]) + text
