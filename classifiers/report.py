"""Figures as tables, for a terminal and for a page in markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from monitor.taxonomy import BEHAVIOURS

HELD_OUT: Final[Mapping[str, str]] = {
    "leave_one_source_out": "sources left out",
    "held_out_contrast": "scenarios held out",
}
"""What the parts of `evaluation.held_out` are called."""
_SLICES: Final[Mapping[str, str]] = {
    "source": "source",
    "script": "script",
    "length": "characters of the answer",
    "depth": "assistant turns before",
}
_SCORES: Final = ("macro_f1", "auroc_misaligned", "ece")
_NAMES: Final = ("macro-F1", "AUROC misaligned", "calibration error")


@dataclass(frozen=True, slots=True)
class Block:
    """A table with a title; the first `labels` columns are text, and with `remark` the last; the others figures."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int = 1
    remark: bool = False

    def is_text(self, column: int) -> bool:
        """Whether a column is read from the left."""
        return column < self.labels or (self.remark and column == len(self.header) - 1)


def table(result: Mapping[str, Any]) -> str:
    """The figures for a terminal; intervals hold 90 %."""
    lines = [f"{result['how']}: {result['n']} turns", ""]
    for block in blocks(result):
        lines += [block.title, *_aligned(block), ""]
    return "\n".join([*lines, *notes(result)])


def markdown(found: Sequence[Block]) -> str:
    """Tables in markdown, each under a heading."""
    parts = []
    for block in found:
        rule = "|" + "".join("---|" if block.is_text(i) else "---:|" for i in range(len(block.header)))
        rows = [f"| {' | '.join(cells)} |" for cells in (block.header, *block.rows)]
        parts.append("\n".join([f"### {block.title}", "", rows[0], rule, *rows[1:]]))
    return "\n\n".join(parts)


def notes(result: Mapping[str, Any]) -> list[str]:
    """What a reader has to know besides: how much was seen in training, and the speed."""
    out = []
    if result.get("seen_in_training"):
        out.append(f"{result['seen_in_training']:.0%} of these rows were trained on: the figures flatter")
    if "tiers" in result:
        speed = ", ".join(f"{tier} {f['turns_per_second']:.0f}" for tier, f in result["tiers"].items())
        out.append(f"{speed} turns/s; the cascade handed on {result['handed_on']:.1%} of the turns")
    else:
        out.append(f"{result['turns_per_second']:.0f} turns/s")
    return out


def blocks(result: Mapping[str, Any]) -> list[Block]:
    """All tables of a result of `evaluation.run_evaluation`."""
    found = _sets(result)
    wider = {
        f"{part}{tier}, resampled by source": m
        for part, held in _comparisons(result)
        for tier, m in held.get("over_sources", {"tiers": {}})["tiers"].items()
    }
    out = [_overall({**found, **wider})]
    differences = {f"{part}{n}": c for part, held in _comparisons(result) for n, c in held["difference"].items()}
    differences |= {
        f"{part}{n}, resampled by source": c
        for part, held in _comparisons(result)
        for n, c in held.get("over_sources", {"difference": {}})["difference"].items()
    }
    if differences:
        out.append(_differences(differences))
    out.append(_behaviours(found))
    for key, name in _SLICES.items():
        cells = {title: m["by"][key] for title, m in found.items() if len(m.get("by", {}).get(key, ())) > 1}
        if cells:  # what is all of one kind is in the first table
            out.append(_slices(f"By {name}", name, cells))
    refusals = {title: m["refusal"] for title, m in found.items() if "refusal" in m}
    if refusals:
        out.append(_refusals(refusals))
    if "calibration" in result:
        out.append(_calibration(result["calibration"]))
    return out


def held_out_blocks(parts: Mapping[str, Any]) -> list[Block]:
    """The tables of `evaluation.held_out`, for a model card of several tiers."""
    return blocks({"held_out": parts})


def _comparisons(result: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if "tiers" in result:
        yield "", result
    for part, found in result.get("held_out", {}).items():
        yield f"{HELD_OUT[part]}, ", found


def _sets(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Every measured set of judgements by its name."""
    if "tiers" in result:
        return dict(result["tiers"])
    held = {f"{part}{tier}": m for part, f in _comparisons(result) for tier, m in f["tiers"].items()}
    if "macro_f1" not in result:
        return held
    return {"grouped folds" if held else result.get("tier", "judgements"): result, **held}


def _overall(found: Mapping[str, Mapping[str, Any]]) -> Block:
    rows = [
        [name, f"{m['n']}", *(_within(m[s], (m["interval"] or {}).get(s)) for s in _SCORES)]
        for name, m in found.items()
    ]
    return Block("Overall, with 90 % intervals", ("judgements", "turns", *_NAMES), rows)


def _differences(found: Mapping[str, Mapping[str, Any]]) -> Block:
    rows = []
    for name, cells in found.items():
        row = [name]
        for c in (cells[s] for s in _SCORES):
            bounds = None if c["low"] is None else [c["low"], c["high"]]
            row.append(_within(c["value"], bounds, signed=True))
        rows.append(row)
    return Block("Differences on the same turns", ("difference", *_NAMES), rows)


def _behaviours(found: Mapping[str, Mapping[str, Any]]) -> Block:
    rows = []
    for b in BEHAVIOURS:
        for name, m in found.items():
            bounds = ((m["interval"] or {}).get("per_class") or {}).get(b, {})
            # a behaviour that does not occur has no recall
            known = m["interval"] is None or b in m["interval"]["per_class"]
            if known:
                rows.append(
                    [b, name, *(_within(m["per_class"][b][p], bounds.get(p)) for p in ("precision", "recall", "f1"))]
                )
    return Block("By behaviour", ("behaviour", "judgements", "precision", "recall", "F1"), rows, labels=2)


def _slices(title: str, name: str, found: Mapping[str, Mapping[str, Any]]) -> Block:
    rows = []
    for value in dict.fromkeys(v for cells in found.values() for v in cells):
        small = set()
        for judged, cells in found.items():
            if value in cells:
                c = cells[value]
                if "recall" not in c:  # too small for any tier: said once
                    if c["n"] not in small:
                        rows.append([value, "", f"{c['n']}", "-", "-", "-", c["note"]])
                    small.add(c["n"])
                    continue
                bounds = c.get("interval") or {}
                scores = [_within(c.get(s), bounds.get(s)) for s in _SCORES]
                told = [c["note"]] if "note" in c else []
                told += [f"{b} {r:.2f}" for b, r in c.get("recall", {}).items()]
                rows.append([value, judged, f"{c['n']}", *scores, "; ".join(told)])
    return Block(title, (name, "judgements", "turns", *_NAMES, "recall"), rows, labels=2, remark=True)


def _refusals(found: Mapping[str, Mapping[str, Any]]) -> Block:
    rows = []
    for name, m in found.items():
        rows.append(_refusal_row("sources left out" if "by_source" in m else name, m))
        parts = {"labelled rows": m.get("labelled"), "rows that label factors only": m.get("factor_rows")}
        parts |= {"scenarios held out": m.get("scenarios"), **m.get("by_source", {})}
        rows += [_refusal_row(f"- {part}", p) for part, p in parts.items() if p and p["n"]]
    return Block(
        "Refusal or not",
        ("answers of", "turns", "refusals", "precision", "recall", "F1", "right", "note"),
        rows,
        remark=True,
    )


def _refusal_row(name: str, m: Mapping[str, Any]) -> list[str]:
    bounds = m.get("interval") or {}
    parts = [_within(m.get(p), bounds.get(p)) for p in ("precision", "recall", "f1")]
    return [name, f"{m['n']}", f"{m['refusals']}", *parts, _number(m.get("right")), m.get("note", "")]


def _calibration(found: Mapping[str, Any]) -> Block:
    rows = [
        [how, method, *(f"{s[k]:.3f}" for k in ("log_loss", "brier", "ece"))]
        for how, methods in found.items()
        for method, s in methods.items()
    ]
    return Block(
        "Calibration compared", ("fitted without", "method", "log-loss (nats)", "Brier", "ECE"), rows, labels=2
    )


def _aligned(block: Block) -> list[str]:
    cells = [list(block.header), *map(list, block.rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(block.header))]
    lines = []
    for row in cells:
        padded = [
            c.ljust(w) if block.is_text(i) else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(padded).rstrip())
    return lines


def _within(value: float | None, bounds: Sequence[float] | None, *, signed: bool = False) -> str:
    if value is None:
        return "-"
    form = "+.3f" if signed else ".3f"
    number = format(value, form)
    return number if bounds is None else f"{number} [{bounds[0]:{form}}, {bounds[1]:{form}}]"


def _number(x: float | None) -> str:
    return "-" if x is None else f"{x:.3f}"
