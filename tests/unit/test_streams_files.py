"""Files, directories and standard input as lines with their position."""

import gzip
import io
import os
import random
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.errors import InputError
from streams.files import Chunk, FileSource, Line, open_sources

LIMIT = 1000


def source(path: Path | None, *, max_line_bytes: int = LIMIT, chunk_lines: int = 256) -> FileSource:
    made = FileSource(path, max_line_bytes=max_line_bytes, chunk_lines=chunk_lines)
    made.poll_seconds = 0.01
    return made


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return path


def read(path: Path, offset: int = 0, line: int = 0, **kw: int) -> list[Chunk]:
    return [c for c in source(path, **kw).chunks(offset, line) if c is not None]


def lines(chunks: list[Chunk]) -> list[Line]:
    return [line for c in chunks for line in c.lines]


def texts(chunks: list[Chunk]) -> list[bytes | None]:
    return [line.data for line in lines(chunks)]


def until(chunks: Iterator[Chunk | None], wanted: int) -> list[Chunk]:
    """Chunks of a followed source until so many lines came (or two seconds of nothing)."""
    got: list[Chunk] = []
    idle = 0
    while len(lines(got)) < wanted and idle < 200:
        chunk = next(chunks)
        if chunk is None:
            idle += 1
        else:
            got.append(chunk)
    return got


@pytest.fixture(params=["a.jsonl", "a.jsonl.gz"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def test_lines_carry_number_offset_and_size(log: Path) -> None:
    """A blank line counts but is not delivered; the last line needs no newline."""
    written(log, b"one\n\n  \nfour\nlast")
    (chunk,) = read(log)
    assert chunk.lines == [Line(1, 0, 3, b"one"), Line(4, 8, 4, b"four"), Line(5, 13, 4, b"last")]
    assert (chunk.first_line, chunk.end_line, chunk.end_offset, chunk.damage) == (1, 5, 17, None)


def test_bom_and_carriage_returns_are_dropped(log: Path) -> None:
    """A file from Windows reads as one from Unix, with the offsets of the bytes that are there."""
    written(log, b"\xef\xbb\xbf{}\r\n\r\n\xef\xbb\xbf\r\r\n")
    (chunk,) = read(log)
    assert chunk.lines == [Line(1, 3, 2, b"{}"), Line(3, 9, 4, b"\xef\xbb\xbf\r")]
    assert chunk.end_offset == 15


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf"])
def test_an_empty_file_has_no_chunks(log: Path, data: bytes) -> None:
    """Nothing in, nothing out, with or without a byte order mark."""
    assert read(written(log, data)) == []


def test_a_beginning_of_a_bom_is_text(log: Path) -> None:
    """Two of its three bytes are no byte order mark."""
    assert texts(read(written(log, b"\xef\xbb"))) == [b"\xef\xbb"]


def test_chunks_are_aligned_on_line_numbers(log: Path) -> None:
    """Chunk k holds lines k*256+1 to (k+1)*256; only the last is short."""
    written(log, b"".join(b"%d\n" % i for i in range(1, 601)))
    chunks = read(log)
    assert [(c.first_line, c.end_line) for c in chunks] == [(1, 256), (257, 512), (513, 600)]
    assert [len(c.lines) for c in chunks] == [256, 256, 88]


def test_a_chunk_of_blank_lines_still_moves_on(log: Path) -> None:
    """Progress does not depend on there being anything to judge."""
    assert [(c.lines, c.end_line) for c in read(written(log, b"\n" * 300))] == [([], 256), ([], 300)]


PIECE = st.sampled_from([b"\n", b"\r\n", b"a", b"bb", b"\r", b" ", b"x" * 30, b"\xef\xbb\xbf", b"\0"])


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECE, max_size=60).map(b"".join), st.integers(1, 9), st.booleans())
def test_resuming_equals_reading_at_once(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, chunk_lines: int, zipped: bool
) -> None:
    """From the end of any chunk on, the rest comes as it would have come, in the same chunks."""
    path = written(tmp_path_factory.mktemp("r") / ("a.gz" if zipped else "a"), data)
    whole = read(path, max_line_bytes=20, chunk_lines=chunk_lines)
    for i, chunk in enumerate(whole):
        rest = read(path, chunk.end_offset, chunk.end_line, max_line_bytes=20, chunk_lines=chunk_lines)
        assert rest == whole[i + 1 :]
    at = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    plain = data[at:].split(b"\n")
    assert [line.number for line in lines(whole)] == [
        n
        for n, t in enumerate(plain, 1)
        if (t[:-1] if t.endswith(b"\r") and n < len(plain) else t).strip() or len(t) > 20 + t.endswith(b"\r")
    ]


@settings(max_examples=100, deadline=None)
@given(st.lists(PIECE, max_size=40).map(b"".join), st.data())
def test_a_file_that_grew_is_resumed_with_the_same_numbers(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, draw: st.DataObject
) -> None:
    """What is added after the first pass gets the numbers a single pass would give, once a newline came between."""
    path = tmp_path_factory.mktemp("g") / "a"
    data = b"{}" + data
    cut = draw.draw(st.sampled_from([i for i in range(len(data)) if data[i : i + 1] == b"\n"] or [len(data)]))
    first = read(written(path, data[:cut]), max_line_bytes=20)
    written(path, data)
    end = first[-1]
    both = [*lines(first), *lines(read(path, end.end_offset, end.end_line, max_line_bytes=20))]
    assert [x.number for x in both] == [x.number for x in lines(read(path, max_line_bytes=20))]


def test_resuming_far_into_a_large_file(log: Path) -> None:
    """Random stops in a file of many blocks lead to the same lines."""
    rng = random.Random(7)
    data = b"".join(b"%d %s\n" % (i, b"y" * rng.randrange(400)) for i in range(5000))
    whole = read(written(log, data))
    for i in rng.sample(range(len(whole)), 4):
        assert read(log, whole[i].end_offset, whole[i].end_line) == whole[i + 1 :]


def test_a_source_shorter_than_the_offset_is_another_one(log: Path) -> None:
    """A file replaced by a shorter one is read from its beginning, and says so."""
    (chunk,) = read(written(log, b"a\nb\n"), 1000, 256)
    assert chunk.restarted
    assert [line.data for line in chunk.lines] == [b"a", b"b"]


def test_the_limit_is_on_the_content(log: Path) -> None:
    """A line of exactly the limit passes, whatever its line end; one byte more does not."""
    written(log, b"x" * LIMIT + b"\r\n" + b"y" * LIMIT + b"\n" + b"z" * (LIMIT + 1) + b"\nok\n" + b"x" * LIMIT)
    a, b, c, d, e = lines(read(log))
    assert a.data == b"x" * LIMIT
    assert b.data == b"y" * LIMIT
    assert (c.data, c.size, c.problem) == (None, LIMIT + 1, "line of 1,001 bytes is over the limit of 1,000")
    assert d.data == b"ok"
    assert e.size == LIMIT


def test_a_line_of_50_mb_costs_no_memory(log: Path) -> None:
    """It is skipped while it is read, reported with its size, and the next line is whole."""
    size = 50 * 1024 * 1024
    with gzip.open(log, "wb", 1) if log.suffix == ".gz" else log.open("wb") as f:
        f.write(b"before\n")
        for _ in range(50):
            f.write(b"a" * (1024 * 1024))
        f.write(b"\nafter\n")
    limit = 1 << 20
    tracemalloc.start()
    (chunk,) = read(log, max_line_bytes=limit)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [line.data for line in chunk.lines] == [b"before", None, b"after"]
    assert chunk.lines[1].size == size
    assert chunk.lines[1].problem == "line of 52,428,800 bytes is over the limit of 1,048,576"
    assert peak < limit + 3 * (1 << 20)


def test_gzip_is_known_by_its_bytes(tmp_path: Path) -> None:
    """A wrong name does not matter, in either direction."""
    zipped = tmp_path / "a.jsonl"
    zipped.write_bytes(gzip.compress(b"one\ntwo\n"))
    plain = tmp_path / "b.jsonl.gz"
    plain.write_bytes(b"three\n")
    assert texts(read(zipped)) == [b"one", b"two"]
    assert texts(read(plain)) == [b"three"]


def test_gzip_of_several_members_with_padding(tmp_path: Path) -> None:
    """Logs that were appended to, and zeros left behind by tapes and blocks, read as one text."""
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"one\ntw") + gzip.compress(b"") + gzip.compress(b"o\n") + b"\0" * 512)
    (chunk,) = read(path)
    assert [line.data for line in chunk.lines] == [b"one", b"two"]
    assert chunk.damage is None


def test_gzip_cut_short(tmp_path: Path) -> None:
    """All whole lines before the cut arrive, the damage is on the last chunk, and a repaired file goes on there."""
    rng = random.Random(1)
    data = b"".join(b"%d %d\n" % (i, rng.getrandbits(64)) for i in range(3000))
    whole = gzip.compress(data)
    path = tmp_path / "a.gz"
    for cut in (3, 12, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        path.write_bytes(whole[:cut])
        chunks = read(path)
        assert [bool(c.damage) for c in chunks] == [False] * (len(chunks) - 1) + [True]
        assert chunks[-1].damage is not None
        assert "gzip data is cut short after byte" in chunks[-1].damage
        assert b"".join((t or b"") + b"\n" for t in texts(chunks)) == data[: chunks[-1].end_offset]
    assert chunks[-1].end_offset == len(data)
    path.write_bytes(whole)
    assert read(path, 0, 0)[-1].damage is None


def test_gzip_damaged_in_the_middle(tmp_path: Path) -> None:
    """Lines before the broken byte are saved; garbage behind the end is damage as well."""
    rng = random.Random(2)
    data = b"".join(b"%d %d\n" % (i, rng.getrandbits(64)) for i in range(3000))
    whole = bytearray(gzip.compress(data))
    path = tmp_path / "a.gz"
    path.write_bytes(bytes(whole) + b"garbage")
    last = read(path)[-1]
    assert last.end_line == 3000
    assert last.damage is not None
    middle = len(whole) // 2
    whole[middle : middle + 40] = b"\xff" * 40
    path.write_bytes(whole)
    chunks = read(path)
    assert chunks[-1].damage is not None
    assert "damaged after byte" in chunks[-1].damage
    assert chunks[-1].end_line > 1000


def test_resuming_behind_damage(tmp_path: Path) -> None:
    """When the damage lies before the place to resume at, it is reported and nothing is read twice."""
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"a\n" * 1000)[:-12])
    assert [(c.lines, c.end_line, bool(c.damage)) for c in read(path, 5000, 256)] == [([], 256, True)]


def test_fingerprint_tells_another_file(log: Path) -> None:
    """The same beginning has the same fingerprint whatever is appended; another beginning has another."""
    mark = source(written(log, b"a" * 10)).fingerprint(10)
    assert source(written(log, b"a" * 10 + b"b" * 10)).fingerprint(10) == mark
    assert source(written(log, b"c" * 10 + b"b" * 10)).fingerprint(10) != mark
    assert source(written(log, b"a" * 9)).fingerprint(10) != mark


def test_fingerprint_covers_64_kib_and_agrees_during_a_pass(log: Path) -> None:
    """It is the same before, within and after a pass, also a resumed one."""
    data = b"".join(b"%d\n" % i for i in range(30_000))
    whole = source(written(log, data)).fingerprint(10**9)
    assert whole == source(log).fingerprint(65536) != source(log).fingerprint(65535)
    reader = source(log)
    ends = []
    for chunk in reader.chunks():
        assert chunk is not None
        ends.append((chunk.end_offset, chunk.end_line, reader.fingerprint(chunk.end_offset)))
    assert ends[-1][2] == whole
    offset, line, mark = ends[3]
    assert source(log).fingerprint(offset) == mark
    again = source(log)
    for chunk in again.chunks(offset, line):
        assert chunk is not None
        assert again.fingerprint(chunk.end_offset) == {e[0]: e[2] for e in ends}[chunk.end_offset]


def test_progress_counts_raw_bytes(log: Path) -> None:
    """At the end as much was consumed as is on disk, compressed or not."""
    reader = source(written(log, b"abc\n" * 10_000))
    assert reader.consumed() == 0
    list(reader.chunks())
    assert reader.consumed() == reader.size == log.stat().st_size


def test_follow_delivers_what_is_appended(tmp_path: Path) -> None:
    """An unfinished last line waits for its newline, and idling yields None."""
    path = written(tmp_path / "a", b"one\ntw")
    chunks = source(path).chunks(follow=True)
    assert texts(until(chunks, 1)) == [b"one"]
    assert next(chunks) is None
    with path.open("ab") as f:
        f.write(b"o\n" + b"x\n" * 300)
    got = until(chunks, 301)
    assert lines(got)[0] == Line(2, 4, 3, b"two")
    assert got[-1].end_line == 302
    assert 256 in [c.end_line for c in got]
    assert not any(c.restarted for c in got)


def test_follow_resumes(tmp_path: Path) -> None:
    """A followed file goes on where an earlier pass had read its unfinished last line."""
    path = written(tmp_path / "a", b"one\ntwo")
    end = read(path)[-1]
    with path.open("ab") as f:
        f.write(b"\nthree\n")
    (chunk,) = until(source(path).chunks(end.end_offset, end.end_line, follow=True), 1)
    assert chunk.lines == [Line(3, 8, 5, b"three")]


@pytest.mark.parametrize("new", [b"x\n", b"longer than everything that was there before\nx\n"])
def test_follow_copes_with_truncation(tmp_path: Path, new: bytes) -> None:
    """A log written anew in its place is read from its beginning, even when it is already longer than before."""
    path = written(tmp_path / "a", b"one\ntwo\nthree\nhal")
    chunks = source(path).chunks(follow=True)
    until(chunks, 3)
    assert next(chunks) is None
    path.write_bytes(new)
    got = until(chunks, new.count(b"\n"))
    assert texts(got) == new.splitlines()
    assert [c.restarted for c in got] == [True]
    assert lines(got)[0].number == 1
    path.write_bytes(b"")
    assert next(chunks) is None


def test_follow_copes_with_rotation(tmp_path: Path) -> None:
    """What was still written to the old file arrives before the new one is read from its beginning."""
    path = written(tmp_path / "a", b"one\n")
    reader = source(path)
    chunks = reader.chunks(follow=True)
    until(chunks, 1)
    old = path.open("ab")
    path.rename(tmp_path / "a.1")
    assert next(chunks) is None
    path.write_bytes(b"")
    assert next(chunks) is None
    old.write(b"two\nthree")
    old.close()
    path.write_bytes(b"four\nfive\n")
    got = until(chunks, 4)
    assert texts(got) == [b"two", b"three", b"four", b"five"]
    assert [line.number for line in lines(got)] == [2, 3, 1, 2]
    assert [c.restarted for c in got if c.lines[0].data == b"four"] == [True]
    assert reader.fingerprint(5) == source(path).fingerprint(5)


class Pipe:
    """Standard input over a real pipe."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        out, self.into = os.pipe()
        self.file = os.fdopen(out, "r")
        monkeypatch.setattr(sys, "stdin", self.file)

    def write(self, data: bytes) -> None:
        os.write(self.into, data)

    def close(self) -> None:
        os.close(self.into)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    made = Pipe(monkeypatch)
    yield made
    made.file.close()


@pytest.mark.parametrize("zipped", [False, True])
def test_standard_input(pipe: Pipe, zipped: bool) -> None:
    """It is read to its end, plain or gzip; an offset is skipped by reading."""
    data = b"one\ntwo\nthree"
    pipe.write(gzip.compress(data) if zipped else data)
    pipe.close()
    (reader,) = open_sources("-", max_line_bytes=LIMIT)
    assert (reader.name, reader.size) == ("-", None)
    (chunk,) = reader.chunks(4, 1)
    assert chunk is not None
    assert [line.data for line in chunk.lines] == [b"two", b"three"]
    assert reader.fingerprint(13) != reader.fingerprint(12)


def test_standard_input_without_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in, as test runners install it, is read like the real one."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\ntwo")))
    assert texts([c for c in source(None).chunks() if c]) == [b"one", b"two"]


def test_follow_standard_input(pipe: Pipe) -> None:
    """Lines are delivered as they come, silence yields None, and the end of the writer is the end."""
    chunks = source(None).chunks(follow=True)
    assert next(chunks) is None
    pipe.write(b"o")
    assert next(chunks) is None
    pipe.write(b"ne\ntwo\nthr")
    assert texts(until(chunks, 2)) == [b"one", b"two"]
    assert next(chunks) is None
    pipe.close()
    assert texts([c for c in chunks if c]) == [b"thr"]


def test_a_directory_is_its_logs_in_order(tmp_path: Path) -> None:
    """Logs at any depth, sorted; hidden ones and other files left out."""
    for name in ("b.jsonl", "a/z.jsonl.gz", "a/y.ndjson", "c.json.gz", ".h.jsonl", ".g/x.jsonl", "n.txt", "d.jsonl/e"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"{}\n")
    names = [s.name for s in open_sources(str(tmp_path), max_line_bytes=LIMIT)]
    assert names == [str(tmp_path / n) for n in ("a/y.ndjson", "a/z.jsonl.gz", "b.jsonl")]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gone.jsonl", "no such file"),
        ("", "empty"),
        ("kafka://broker/topic", "kafka://"),
        ("bad\0name", "not a path"),
        ("new\nline\x1b[2J", r"new\\nline\\x1b\[2J: no such file"),
        ("x" * 5000, "too long"),
        ("/dev/zero", "neither a file nor a directory"),
    ],
)
def test_sources_that_cannot_be_read(name: str, why: str) -> None:
    """The error is one line that says what is wrong."""
    with pytest.raises(InputError, match=why) as e:
        open_sources(name, max_line_bytes=LIMIT)
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 500


def test_a_directory_without_logs(tmp_path: Path) -> None:
    """The error names what would count as a log."""
    with pytest.raises(InputError, match=r"no logs in this directory \(\*\.jsonl"):
        open_sources(str(tmp_path), max_line_bytes=LIMIT)


def test_a_file_that_vanished(tmp_path: Path) -> None:
    """A file removed after it was named is an InputError when it is read."""
    (made,) = open_sources(str(written(tmp_path / "a", b"x")), max_line_bytes=LIMIT)
    (tmp_path / "a").unlink()
    with pytest.raises(InputError, match="cannot be read: No such file"):
        list(made.chunks())
    assert made.size is None


def test_a_gzip_bomb_is_read_in_blocks(tmp_path: Path) -> None:
    """100 MB of zeros in 100 kB are one long line and a few blocks of memory."""
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", 9) as f:
        for _ in range(100):
            f.write(b"\0" * (1 << 20))
    tracemalloc.start()
    (line,) = lines(read(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert line.size == 100 << 20
    assert peak < 3 << 20


def test_long_lines_end_a_chunk_early(tmp_path: Path) -> None:
    """Many lines near the size limit do not pile up in memory: the chunk ends early, at the same line on a resume."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"".join(b"%07d" % i + b"x" * (1 << 20) + b"\n" for i in range(40)))
    source = FileSource(path, max_line_bytes=1 << 22)
    chunks = [c for c in source.chunks() if c]
    assert [len(c.lines) for c in chunks] == [16, 16, 8]
    again = [c for c in source.chunks(chunks[0].end_offset, chunks[0].end_line) if c]
    assert [(c.first_line, c.end_offset) for c in again] == [(c.first_line, c.end_offset) for c in chunks[1:]]
