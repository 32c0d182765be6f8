"""Notices for tests: one as it comes, and ones whose every string an attacker has written."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from alerts.notice import Figure, Notice, TellingTurn
from alerts.sample import sample

NOW: Final = datetime(2026, 3, 11, 10, 12, tzinfo=UTC)

HOSTILE: Final = {
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)><a href='javascript:alert(1)'>here</a>",
    "attribute": '"\' onmouseover=alert(1) style="x" --><!-- ]]>',
    "entities": "&lt;!channel&gt; &amp; &#60;b&#62;",
    "slack": "<!channel> <!here> <!everyone> <@U024BE7LH> <#C024BE7LR> <https://evil.example|the dashboard>",
    "mentions": "@here @channel @everyone :skull: *bold* _it_ ~no~ `code` > quote",
    "markdown": "[dashboard](https://evil.example) ![x](https://evil.example/p.png) # head",
    "crlf": "shop\r\nBcc: victim@example.org\r\nSubject: forged\r\n\r\n.\r\nQUIT\r\n",
    "terminal": "\x1b[31mred\x1b]0;title\x07 \x00 \x08 \x7f \x9b",
    "direction": "\u202egnp.exe\u2066 \u2069\u200f \u2028 \u2029 \ufeff",
    "surrogate": "half \ud83d of a pair",
    "template": "{{ .Labels }} {series} %s ${PATH} {{7*7}}",
    "formula": '=HYPERLINK("https://evil.example")',
    "long": "A" * 10_000_000,
    "long markup": "<!channel>&" * 200_000,
}


def notice(**changes: Any) -> Notice:
    """A page with everything in it."""
    links = {
        "dashboard_url": "https://grafana.example/d/series?var-series=shop%2Fm-1&from=now-7d",
        "runbook_url": "https://docs.example/runbooks/value_drift.md",
    }
    return replace(sample(NOW, **links), **({"id": "a1b2c3d4e5f60718", "title": "harm rose in shop/m-1"} | changes))


def hostile(text: str, **changes: Any) -> Notice:
    """A notice whose every string is the same, links and runbook included."""
    plain = notice()
    written = {
        "rule": text,
        "series": text,
        "labels": {text: text, "series": text, "deployment": text, "model": text, "rule": text, "severity": "page"},
        "title": text,
        "reason": text,
        "guarantee": text,
        "note": text,
        "figures": tuple(Figure(text, text) for _ in range(50)),
        "where": (text,) * 50,
        "turns": tuple(TellingTurn(text, 0, NOW, text, 0.9, text, text, text) for _ in range(50)),
        "trace": plain.trace * 10,
        "dashboard_url": f"https://grafana.example/{text}",
        "runbook_url": text,
    }
    return replace(plain, **(written | changes))
