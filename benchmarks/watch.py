"""Speed and memory of `valuedrift watch` against merely decoding and tokenising the same file, in one run.

    python benchmarks/watch.py [--log FILE] [--turns 20000] [--json]

The whole path (read, decode, judge, store, step, summary; one process, start-up included) is timed in a process of its
own; so is the floor, which decodes the same lines and encodes the same texts with the Hugging Face `tokenizers`
library (a byte-pair vocabulary trained on the log beforehand). They take turns, and medians of the ratios are given:
single seconds mean little on a shared machine. Memory is the peak resident size of the watching process for the log
and for one ten times as long.
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
        log, long_log, vocabulary = base / "log.jsonl", base / "long.jsonl", base / "bpe.json"
        log.write_text("".join(lengthened(events, options.turns)), encoding="utf-8")
        _train_tokenizer(events, vocabulary)
        floors, watches, ratios = [], [], []
        for i in range(options.rounds):
            floor, _, tokens = timed([sys.executable, "-c", FLOOR, str(log), str(vocabulary)])
            watch, memory, out = timed([valuedrift, "watch", str(log), "--db", f"sqlite:///{base}/{i}.db", "--json"])
            floors.append(floor)
            watches.append(watch)
            ratios.append(floor / watch)
        turns = json.loads(out.splitlines()[-1])["events"]["turns"]
        with long_log.open("w", encoding="utf-8") as f:
            f.writelines(lengthened(events, 10 * options.turns))
        _, long_memory, _ = timed([valuedrift, "watch", str(long_log), "--db", f"sqlite:///{base}/long.db", "--json"])
    result = {
        "turns": turns,
        "tokens_per_turn": round(int(tokens) / turns, 1),
        "watch_turns_per_second": round(turns / statistics.median(watches), 1),
        "floor_turns_per_second": round(turns / statistics.median(floors), 1),
        "ratio_to_floor": round(statistics.median(ratios), 3),
        "peak_rss_mb": round(memory, 1),
        "peak_rss_mb_10x": round(long_memory, 1),
        "rss_growth": round(long_memory / memory - 1, 4),
    }
    for name, value in result.items():
        print(f"{name:28} {value}")
    if options.json:
        print(json.dumps(result))


def _train_tokenizer(events: list[dict[str, Any]], path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    texts = [m["content"] for e in events for m in e["messages"]]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=30_000, show_progress=False))
    tokenizer.save(str(path))


if __name__ == "__main__":
    main()
