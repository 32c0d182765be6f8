"""What a pass over many series costs: every rule asked about every series, states moved on, targets told, on one core.

    python benchmarks/oncall.py [--series 10000] [--json]

Twelve rules on readings of a series: seven built in, one of them for a budget, and five of one's own. Three fleets:

quiet    nothing holds, and nothing is remembered: most passes.
usual    two series in a hundred are in trouble and were before; then the pass that tells of all of them again.
storm    every rule of every series begins to hold at once. `storm_seconds` is the evaluation, `storm_told_seconds` what
         it takes on top to decide on a notice of each for two targets.

Reading and writing a database is not counted. Bound: --series 10000, each evaluation in less than two seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alerts.conditions import METRICS, Readings
from alerts.machine import NOTHING, Instance, Key, advance
from alerts.rulebook import compile_rules
from alerts.rules import Rule
from alerts.settings import Alerts, BudgetSettings, RuleSettings
from alerts.stages import Recipient, Surroundings, Tell, notify

START = datetime(2026, 1, 1, tzinfo=UTC)
TICK = timedelta(seconds=10)
RECIPIENTS = tuple(Recipient(name, frozenset({"page", "ticket"})) for name in ("alertmanager", "slack"))
SETTINGS = Alerts(
    rules={
        "restoring_rate": RuleSettings(below=0.1),
        "faithfulness": RuleSettings(below=0.5),
        "refuses_much": RuleSettings(metric="over_refusal", above=0.2),
        "misaligned": RuleSettings(metric="misaligned", above=0.3, clear_at=0.2, for_="30m", min_turns=100),
        "mixed": RuleSettings(metric="entropy", above=0.9),
        "rising": RuleSettings(metric="entropy_rate", above=0.1),
        "far_off": RuleSettings(metric="kl", above=0.2),
    },
    budgets={"harm": BudgetSettings("harmful_compliance", 0.01)},
)
FINE = {
    **dict.fromkeys(METRICS, (0.05, 0.02, 0.08)),
    **dict.fromkeys(("turns_1h", "turns_24h", "turns_7d"), (5000.0, 5000.0, 5000.0)),
    **dict.fromkeys(("harmful_compliance", "harmful_compliance_1h", "harmful_compliance_7d"), (0.001, 0.0005, 0.002)),
    "margin": (2.0, 1.8, 2.2),
    "kappa": (1.0, 0.5, 1.5),
    "context_support": (0.9, 0.85, 0.95),
}
IN_TROUBLE = {
    **FINE,
    **dict.fromkeys(("harmful_compliance", "harmful_compliance_1h", "harmful_compliance_7d"), (0.2, 0.15, 0.25)),
    **dict.fromkeys(("over_refusal", "misaligned", "doubt", "judge_disagreement", "kl"), (0.6, 0.55, 0.65)),
    "entropy": (1.2, 1.1, 1.3),
    "entropy_rate": (0.5, 0.4, 0.6),
    "margin": (0.5, 0.4, 0.6),
    "kappa": (0.01, 0.0, 0.05),
    "context_support": (0.2, 0.1, 0.3),
}


@dataclass
class Fleet:
    """Readings of many series and what is remembered of them."""

    rules: tuple[Rule, ...]
    readings: Mapping[str, Readings]
    memories: dict[Key, Instance] = field(default_factory=dict)

    def evaluate(self, now: datetime) -> float:
        """Seconds it took to ask every rule about every series, and to move states on."""
        started = time.perf_counter()
        for rule in self.rules:
            for name, readings in self.readings.items():
                key = Key(rule.name, name)
                before = self.memories.get(key, NOTHING)
                seen = rule.observe(readings, before.standing, now)
                if before is NOTHING and not seen.holds:
                    continue
                self.memories[key], _ = advance(key, before, seen, rule.policy, now)
        return time.perf_counter() - started

    def tell(self, now: datetime) -> tuple[float, int]:
        """Seconds it took to decide who is told, and how many notices came of it."""
        told, quiet = 0, Surroundings()
        policies = {rule.name: rule.policy for rule in self.rules}
        started = time.perf_counter()
        for key, instance in self.memories.items():
            self.memories[key], said = notify(instance, RECIPIENTS, quiet, policies[key.rule], now)
            told += sum(isinstance(x, Tell) for x in said)
        return time.perf_counter() - started, told


def fleet(series: int, troubled: float, rng: np.random.Generator) -> Fleet:
    """Some of the series in trouble; figures differ a little from series to series."""
    chosen = rng.random(series) < troubled
    scale = rng.uniform(0.9, 1.1, series)
    readings = {
        f"bot-{i}/m-1": Readings(
            {k: (x * scale[i], lo * scale[i], hi * scale[i]) for k, (x, lo, hi) in figures.items()},
            START,
            # what is in trouble is silent, too; the others speak throughout
            START - timedelta(hours=3) if chosen[i] else START + timedelta(days=1),
        )
        for i, figures in enumerate(IN_TROUBLE if bad else FINE for bad in chosen)
    }
    return Fleet(compile_rules(SETTINGS).series, readings)


def measure(series: int, seed: int = 3) -> dict[str, Any]:
    """The three fleets. Deterministic but for the times."""
    rng = np.random.default_rng(seed)
    found: dict[str, Any] = {"series": series, "rules": len(compile_rules(SETTINGS).series)}
    quiet = fleet(series, 0.0, rng)
    found["quiet_seconds"] = quiet.evaluate(START)
    usual, at = fleet(series, 0.02, rng), START + timedelta(hours=2)
    for now in (START, at):
        usual.evaluate(now)
        usual.tell(now)
    found["usual_seconds"] = usual.evaluate(at + TICK)
    found["usual_told_seconds"], found["usual_told"] = usual.tell(at + timedelta(hours=4))
    found["usual_standing"] = sum(i.standing for i in usual.memories.values())
    storm = fleet(series, 1.0, rng)
    found["storm_seconds"] = storm.evaluate(START)
    found["storm_told_seconds"], found["storm_told"] = storm.tell(START)
    found["storm_standing"] = sum(i.standing for i in storm.memories.values())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    found = measure(options.series)
    if options.json:
        print(json.dumps(found))
        return
    asked = found["series"] * found["rules"]
    for name, value in found.items():
        seconds = name.endswith("seconds")
        shown = f"{value:8.3f}   {1e6 * value / asked:6.2f} us a rule and series" if seconds else f"{value:8,}"
        print(f"{name:24} {shown}")


if __name__ == "__main__":
    main()
