"""The body of a request: read with bounds, inflated, cut into items."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from email.message import Message
from types import TracebackType
from typing import Final

import msgspec

from monitor.web.limits import Held
from monitor.web.refusals import Refused
from streams.surrogates import mend

JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"
LINES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")
_BOM: Final = b"\xef\xbb\xbf"
_STEP: Final = 1 << 18
"""Bytes inflated at a time: a bomb is noticed this far beyond the limit."""
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ONE: Final = msgspec.json.Decoder(msgspec.Raw)


def content_type(headers: Mapping[str, str], allowed: tuple[str, ...]) -> str:
    """The type of the body. Raises Refused 415 when it is none of those allowed, or in another encoding than UTF-8."""
    parsed = Message()
    parsed["content-type"] = headers.get("content-type", "")
    kind = parsed.get_content_type() if headers.get("content-type") else ""
    if kind not in allowed:
        raise Refused(415, f"Content-Type must be one of {', '.join(allowed)}")
    if str(parsed.get_param("charset", "utf-8")).lower() not in ("utf-8", "utf8"):
        raise Refused(415, "the charset must be utf-8")
    return kind


class Body:
    """Reads one body and answers for its bytes until it is closed: `with Body(...) as body`.

    Parameters
    ----------
    limit : most bytes, before and after decompression.
    """

    def __init__(self, headers: Mapping[str, str], stream: AsyncIterator[bytes], limit: int, held: Held) -> None:
        self._headers = headers
        self._stream = stream
        self._limit = limit
        self._held = held
        self._taken = 0

    def __enter__(self) -> Body:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, where: TracebackType | None) -> None:
        self._held.give_back(self._taken)
        self._taken = 0

    async def read(self) -> bytes:
        """All of it, decompressed.

        Raises
        ------
        Refused : 413 too large, 415 unknown Content-Encoding, 400 no gzip after all, 503 no room for it.
        """
        encoding = self._headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("gzip", "identity", ""):
            raise Refused(415, "Content-Encoding must be gzip or identity", headers={"accept-encoding": "gzip"})
        declared = self._headers.get("content-length", "0")
        if declared.isascii() and declared.isdigit() and int(declared[:20]) > self._limit:
            raise self._too_large()
        gzip = Gzip() if encoding == "gzip" else None
        pieces: list[bytes] = []
        raw = 0
        async for data in self._stream:
            raw += len(data)
            if raw > self._limit:
                raise self._too_large()
            for piece in [data] if gzip is None else gzip.feed(data):
                self._held.take(len(piece))
                self._taken += len(piece)
                if self._taken > self._limit:
                    raise self._too_large()
                pieces.append(piece)
        if gzip is not None:
            gzip.finish()
        return b"".join(pieces)

    def _too_large(self) -> Refused:
        return Refused(413, f"the body is over the limit of {self._limit:,} bytes; send it in pieces")


class Gzip:
    """Inflates what is fed to it, a bounded step at a time. Raises Refused 400 where it is no gzip."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._inside = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        full = False
        while data or full:
            self._inside = True
            try:
                piece = self._member.decompress(data, _STEP)
            except zlib.error:
                raise Refused(400, "the body is not gzip, or damaged") from None
            if piece:
                yield piece
            data, full = self._member.unconsumed_tail, len(piece) == _STEP  # a full step: more may wait inside
            if self._member.eof:
                data, full = self._member.unused_data, False
                self._member, self._inside = zlib.decompressobj(wbits=31), False

    def finish(self) -> None:
        if self._inside:
            raise Refused(400, "the body is not gzip, or cut short")


def items_of(body: bytes, kind: str) -> list[bytes]:
    """The JSON texts in a body: of an object itself, of a list its members, of lines each that is not blank.

    Raises
    ------
    Refused : 400 where there is no JSON at all.
    """
    body = body.removeprefix(_BOM)
    if kind != JSON:
        lines = [stripped for line in body.split(b"\n") if (stripped := line.strip())]
        if not any(_is_json(line) for line in lines):
            raise Refused(400, "no line of the body is JSON")
        return lines
    body = body.strip()
    if body.startswith(b"{"):
        if not _is_json(body):
            raise Refused(400, "the body is not JSON; several objects are application/x-ndjson or a list")
        return [body]
    if not body.startswith(b"["):
        raise Refused(400, "the body is neither a JSON object nor a list of them")
    try:
        return [bytes(raw) for raw in _ITEMS.decode(mend(body))]
    except msgspec.DecodeError as e:
        raise Refused(400, str(e)) from None
    except RecursionError:
        raise Refused(400, "nested too deeply") from None


def _is_json(text: bytes) -> bool:
    """Whether it is JSON as far as its braces go; too deep a nesting is for the decoder to name."""
    try:
        _ONE.decode(mend(text))
    except msgspec.DecodeError:
        return False
    except RecursionError:
        return True
    return True
