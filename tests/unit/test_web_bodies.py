"""Bodies: read within bounds however they arrive, cut into items."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.web.bodies import JSON, LINES, Body, content_type, items_of
from monitor.web.limits import Held
from monitor.web.refusals import Refused

TEXTS = st.lists(st.dictionaries(st.text(max_size=3), st.one_of(st.integers(), st.text(), st.none())), max_size=8)


def read(pieces: list[bytes], headers: dict[str, str], limit: int = 1000, held: Held | None = None) -> bytes:
    """What Body makes of a body that comes in these pieces; all of it is given back in any case."""
    held = held or Held(10**9, 1)

    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def run() -> bytes:
        with Body(headers, stream(), limit, held) as body:
            data = await body.read()
            assert held.bytes == len(data)
            return data

    try:
        return asyncio.run(run())
    finally:
        assert held.bytes == 0


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({0, len(data), *(p % (len(data) + 1) for p in places)})
    return [data[a:b] for a, b in pairwise(ends)]


@given(st.lists(st.binary(max_size=300), max_size=3), st.lists(st.integers(0, 10**6), max_size=6))
def test_gzip_in_any_pieces(members: list[bytes], places: list[int]) -> None:
    """Gzip of any number of members gives its text, whatever pieces it comes in."""
    data = b"".join(gzip.compress(m) for m in members)
    assert read(cut(data, places), {"content-encoding": "gzip"}) == b"".join(members)


@given(st.binary(min_size=1, max_size=300), st.integers(1, 30))
def test_gzip_cut_short(text: bytes, missing: int) -> None:
    """Gzip that ends too early is refused."""
    data = gzip.compress(text)
    with pytest.raises(Refused) as e:
        read([data[: max(1, len(data) - missing)]], {"content-encoding": "gzip"})
    assert e.value.status == 400


@pytest.mark.parametrize("size", [1000, 1001, 1 << 22])
def test_limit(size: int) -> None:
    """The limit is of the text: exactly as much goes, one byte more does not, however small it was made."""
    for data, headers in ((b" " * size, {}), (gzip.compress(b" " * size), {"content-encoding": "gzip"})):
        if size == 1000:
            assert len(read([data], headers)) == 1000
            continue
        with pytest.raises(Refused) as e:
            read([data], headers)
        assert e.value.status == 413


def test_declared_too_large() -> None:
    """A length that is declared is believed where it is too large: nothing is read."""

    def never() -> list[bytes]:
        raise AssertionError("read")

    class Never(list[bytes]):
        def __iter__(self) -> None:  # type: ignore[override]
            never()

    with pytest.raises(Refused) as e:
        read(Never(), {"content-length": "1001"})
    assert e.value.status == 413


def test_large_bodies_need_room() -> None:
    """Where there is no room for a body it is asked to come again."""
    held = Held(500, 1)
    with pytest.raises(Refused) as e:
        read([b"x" * 400, b"x" * 400], {}, held=held)
    assert e.value.status == 503


@given(TEXTS)
def test_list_and_lines_are_alike(values: list[dict[str, object]]) -> None:
    """A list's members and the same as lines are the same items, with a byte order mark and Windows lines, too."""
    body = json.dumps(values, ensure_ascii=False).encode()
    assert [json.loads(i) for i in items_of(body, JSON)] == values
    assert items_of(b"\xef\xbb\xbf \n" + body, JSON) == items_of(body, JSON)
    if values:
        lines = "\r\n\r\n".join(json.dumps(v) for v in values).encode()
        assert [json.loads(i) for i in items_of(lines, LINES[0])] == values


def test_one_bad_line() -> None:
    """Lines that are no JSON are items, too, as long as one is: each is then told by itself."""
    assert items_of(b"nonsense\n{}\n", LINES[0]) == [b"nonsense", b"{}"]


@pytest.mark.parametrize(
    "header", ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"']
)
def test_content_type(header: str) -> None:
    """Types are told however they are written."""
    assert content_type({"content-type": header}, (JSON,)) == JSON


@pytest.mark.parametrize(
    "header", [None, "", "json", "text/json", "application/json; charset=latin-1", "application/json\n x"]
)
def test_other_content_type(header: str | None) -> None:
    """Others are refused, and not repeated in the answer."""
    with pytest.raises(Refused) as e:
        content_type({} if header is None else {"content-type": header}, ("application/xml",))
    assert e.value.status == 415
    assert "latin" not in e.value.reason
