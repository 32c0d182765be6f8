"""Speed of the classifier's tiers against tokenising alone, in one run and one process.

    python benchmarks/classify.py [--tier fast] [--turns 4000] [--json]
    python benchmarks/classify.py --tier accurate --turns 200 [--json]

Turns of about 200 tokens are made of the bundled transcripts. The floor is the Hugging Face `tokenizers` library
encoding the same texts, with all its threads and a byte-pair vocabulary trained on them beforehand. The two take turns;
the median of the ratios is what counts. With the accurate tier there is a second comparison: a plain encoder of the
same size in 32 bits, by torch, on as many tokens a turn as this tier reads, in batches of one length.
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
PLAIN_BATCH = 16


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


def plain_encoder(turns: list[Turn]) -> Callable[[], object]:
    """Run a plain 32-bit encoder of the accurate tier's size over as many tokens a turn as that reads."""
    import numpy as np
    import torch

    from classifiers import accurate, encoder

    tokens = encoder.Tokens()
    reads = [tokens.of_turn(*pair)[0] for pair in accurate.pairs([(t.before, t.answer) for t in turns])]
    length = round(sum(map(len, reads)) / len(reads))
    torch.set_num_threads(2)
    layer = torch.nn.TransformerEncoderLayer(
        encoder.WIDTH, encoder.ATTENTION_HEADS, encoder.INNER, activation="gelu", batch_first=True
    )
    model = torch.nn.TransformerEncoder(layer, encoder.LAYERS).eval()
    words = torch.nn.Embedding(30_522, encoder.WIDTH)
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 30_522, (len(turns), length)))

    def run() -> None:
        with torch.inference_mode():
            for start in range(0, len(turns), PLAIN_BATCH):
                model(words(ids[start : start + PLAIN_BATCH]))

    return run


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
    plain = plain_encoder(turns) if options.tier == "accurate" else None
    floors, judged, plains = [], [], []
    for _ in range(options.rounds):
        floors.append(seconds(lambda: tokenizer.encode_batch(texts)))
        judged.append(seconds(lambda: classifier.classify(turns)))
        if plain is not None:
            plains.append(seconds(plain))
    result = {
        "tier": options.tier,
        "turns": len(turns),
        "tokens_per_turn": round(sum(len(e.ids) for e in tokenizer.encode_batch(texts)) / len(texts), 1),
        "turns_per_second": round(len(turns) / statistics.median(judged), 1),
        "tokenised_per_second": round(len(turns) / statistics.median(floors), 1),
        "ratio_to_tokenising": round(statistics.median(f / j for f, j in zip(floors, judged, strict=True)), 3),
    }
    if plains:
        result["ratio_to_plain_encoder"] = round(
            statistics.median(p / j for p, j in zip(plains, judged, strict=True)), 3
        )
    for name, value in result.items():
        print(f"{name:24} {value}")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
