"""Speed of the classifier's tiers against tokenising alone, in one run and one process.

    python benchmarks/classify.py [--tier fast] [--turns 4000] [--json]

Turns of about 200 tokens are made of the bundled transcripts. The floor is the Hugging Face `tokenizers` library
encoding the same texts, with all its threads and a byte-pair vocabulary trained on them beforehand. The two take turns;
the median of the ratios is what counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from classifiers.tiers import TIERS, load_tier
from monitor.transcript import Event, Message, Turn

EXAMPLES = Path(__file__).parent.parent / "examples" / "two_weeks.jsonl"
TOKENS = 200


def tokenizer_of(texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=30_000, show_progress=False))
    return tokenizer


def turns_of_length(tokenizer: Tokenizer, events: list[dict[str, object]], n: int) -> list[Turn]:
    """Real requests and answers, joined until a turn holds about TOKENS tokens."""
    exchanges: list[tuple[str, str]] = []
    for e in events:
        messages = e["messages"]
        assert isinstance(messages, list)
        exchanges.append((messages[-2]["content"], messages[-1]["content"]))
    turns: list[Turn] = []
    at = 0
    while len(turns) < n:
        request, answer = "", ""
        while len(tokenizer.encode(request + answer)) < TOKENS:
            request, answer = (
                f"{a} {b}" for a, b in zip((request, answer), exchanges[at % len(exchanges)], strict=True)
            )
            at += 1
        messages = (Message("user", request), Message("assistant", answer))
        event = Event(f"e{len(turns)}", datetime(2026, 1, 1, tzinfo=UTC), "bench", "bench", "c", messages)
        turns.append(Turn(event, 0, messages[:1], answer))
    return turns


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", choices=TIERS, default="fast")
    parser.add_argument("--turns", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    events = [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
    tokenizer = tokenizer_of([m["content"] for e in events for m in e["messages"]])
    turns = turns_of_length(tokenizer, events, options.turns)
    texts = ["\n".join([turn.before[0].content, turn.answer]) for turn in turns]
    classifier = load_tier(options.tier)
    classifier.classify(turns[:50])
    floors, judged = [], []
    for _ in range(options.rounds):
        floors.append(seconds(lambda: tokenizer.encode_batch(texts)))
        judged.append(seconds(lambda: classifier.classify(turns)))
    result = {
        "tier": options.tier,
        "turns": len(turns),
        "tokens_per_turn": round(sum(len(e.ids) for e in tokenizer.encode_batch(texts)) / len(texts), 1),
        "turns_per_second": round(len(turns) / statistics.median(judged), 1),
        "tokenised_per_second": round(len(turns) / statistics.median(floors), 1),
        "ratio_to_tokenising": round(statistics.median(f / j for f, j in zip(floors, judged, strict=True)), 3),
    }
    for name, value in result.items():
        print(f"{name:24} {value}")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
