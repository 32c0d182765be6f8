"""Speed and memory of `valuedrift watch` against merely decoding and tokenising the same file, in one run.

    python benchmarks/watch.py [--log FILE] [--turns 20000] [--json]

The whole path (read, decode, judge, store, step, summary; one process, start-up included) is timed in a process of its
own; so is the floor, which decodes the same lines and encodes the same texts with the Hugging Face `tokenizers`
library (a byte-pair vocabulary trained on the log beforehand). They take turns, and medians of the ratios are given:
single seconds mean little on a shared machine. The traffic is that of the log made denser, 20,000 turns in its two
weeks; `thin` repeats the log over years instead, where nearly every turn closes an hour and has points to pay for.
Memory is the peak resident size of the watching process for the dense log and for one of ten times the turns.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parent.parent / "examples" / "two_weeks.jsonl"


def read(path: Path) -> list[dict[str, Any]]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.splitlines()]


def lengthened(events: list[dict[str, Any]], turns: int) -> Iterator[str]:
    """The log over and over, time shifted and ids renamed, until it holds so many judged turns."""
    first, last = (datetime.fromisoformat(events[i]["ts"]) for i in (0, -1))
    period = last - first + timedelta(minutes=5)
    done = k = 0
    while done < turns:
        for i, e in enumerate(events):
            answers = sum(m["role"] == "assistant" for m in e["messages"])
            done += answers if e.get("judge") == "all" else 1
            ts = datetime.fromisoformat(e["ts"]) + k * period
            # keep it in the past however long the log becomes
            ts = ts if ts < datetime.now(UTC) else first + (ts - first) % (datetime.now(UTC) - first)
            yield json.dumps(e | {"event_id": f"{k}-{i}", "ts": ts.isoformat()}, ensure_ascii=False) + "\n"
            if done >= turns:
                return
        k += 1


def denser(events: list[dict[str, Any]], turns: int) -> Iterator[str]:
    """The log with every event many times, seconds apart and renamed: so many judged turns in the time of the log."""
    once = sum(sum(m["role"] == "assistant" for m in e["messages"]) if e.get("judge") == "all" else 1 for e in events)
    for i, e in enumerate(events):
        for k in range(-(-turns // once)):
            ts = datetime.fromisoformat(e["ts"]) + timedelta(seconds=7 * k)
            yield json.dumps(e | {"event_id": f"{k}-{i}", "ts": ts.isoformat()}, ensure_ascii=False) + "\n"


FLOOR = """
import sys
from datetime import datetime, UTC
from tokenizers import Tokenizer
from monitor.transcript import turns_of
from streams.formats import Decoder
tokenizer = Tokenizer.from_file(sys.argv[2])
decoder, now, texts, tokens = Decoder("canonical"), datetime.now(UTC), [], 0
def encode():
    global tokens
    tokens += sum(len(e.ids) for e in tokenizer.encode_batch(texts))
    texts.clear()
with open(sys.argv[1], "rb") as lines:
    for line in lines:
        for turn in turns_of(decoder.decode(line, now)):
            texts.append("\\n".join([*(m.content for m in turn.before), turn.answer]))
        if len(texts) >= 256:
            encode()
encode()
print(tokens)
"""


def timed(arguments: list[str]) -> tuple[float, float, str]:
    """Seconds, peak resident MB and stdout of a command."""
    started = time.perf_counter()
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{arguments} failed")
    return time.perf_counter() - started, usage.ru_maxrss / 1024, out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, default=EXAMPLES)
    parser.add_argument("--turns", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    valuedrift = str(Path(sys.executable).parent / "valuedrift")
    events = read(options.log)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        logs = {name: base / f"{name}.jsonl" for name in ("dense", "thin", "long")}
        vocabulary = base / "bpe.json"
        for name, lines in (
            ("dense", denser(events, options.turns)),
            ("thin", lengthened(events, options.turns)),
            ("long", denser(events, 10 * options.turns)),
        ):
            with logs[name].open("w", encoding="utf-8") as f:
                f.writelines(lines)
        _train_tokenizer(events, vocabulary)
        floors, watches, thins = [], [], []
        for i in range(options.rounds):
            floor, _, tokens = timed([sys.executable, "-c", FLOOR, str(logs["dense"]), str(vocabulary)])
            watch, memory, out = timed(_watch(valuedrift, logs["dense"], base / f"{i}.db"))
            thin, _, thin_out = timed(_watch(valuedrift, logs["thin"], base / f"thin{i}.db"))
            floors.append(floor)
            watches.append(watch)
            thins.append(thin)
        _, long_memory, _ = timed(_watch(valuedrift, logs["long"], base / "long.db"))
    turns, thin_turns = (json.loads(x.splitlines()[-1])["events"]["turns"] for x in (out, thin_out))
    speeds = [turns / w for w in watches]
    result = {
        "turns": turns,
        "tokens_per_turn": round(int(tokens) / turns, 1),
        "watch_turns_per_second": round(statistics.median(speeds), 1),
        "thin_turns_per_second": round(statistics.median(thin_turns / t for t in thins), 1),
        "floor_turns_per_second": round(turns / statistics.median(floors), 1),
        "ratio_to_floor": round(statistics.median(f / w for f, w in zip(floors, watches, strict=True)), 3),
        "thin_ratio_to_dense": round(
            statistics.median(thin_turns / t / s for t, s in zip(thins, speeds, strict=True)), 3
        ),
        "peak_rss_mb": round(memory, 1),
        "peak_rss_mb_10x": round(long_memory, 1),
        "rss_growth": round(long_memory / memory - 1, 4),
    }
    for name, value in result.items():
        print(f"{name:28} {value}")
    if options.json:
        print(json.dumps(result))


def _watch(valuedrift: str, log: Path, database: Path) -> list[str]:
    return [valuedrift, "watch", str(log), "--db", f"sqlite:///{database}", "--json"]


def _train_tokenizer(events: list[dict[str, Any]], path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    texts = [m["content"] for e in events for m in e["messages"]]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=30_000, show_progress=False))
    tokenizer.save(str(path))


if __name__ == "__main__":
    main()
