"""A report in its four forms: the same bytes every time, figures as people write them, nothing in it that acts."""

from __future__ import annotations

import ctypes
import doctest
import json
import math
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from itertools import pairwise

import jsonschema
import msgspec
import pypdfium2
import pypdfium2.raw as raw
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from monitor.report import answers, figures, markdown, tables, words
from monitor.report.html import page
from monitor.report.model import Interval, ReportData
from monitor.report.render import render, schema
from tests import report_cases
from tests.conftest import ROOT, environment
from tests.notice_cases import HOSTILE
from tests.report_cases import empty, large, report, rewritten

FORMATS = ("html", "pdf", "md", "json")
PRINTING = """
import hashlib
import json
from monitor.report.render import render
from tests.report_cases import short
print(json.dumps({f: hashlib.sha256(render(short(), f)).hexdigest() for f in ("html", "pdf", "md", "json")}))
"""


def short(text: str | None = None) -> ReportData:
    """A report of three series with few points; all its strings are `text` where that is given."""
    made = report_cases.short()
    return made if text is None else rewritten(made, lambda _: text)


class Elements(HTMLParser):
    """The elements of a page with the names of their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.links: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(k for k, _ in attrs)))
        self.links |= {str(v) for k, v in attrs if k in ("href", "src", "xlink:href", "action")}

    def handle_data(self, data: str) -> None:
        self.text += data

    def elements(self) -> list[tuple[str, set[str]]]:
        """But for the class that short lines of tables have."""
        return [(tag, set(names) - ({"class"} if tag in ("span", "small") else set())) for tag, names in self.found]


def test_same_bytes_in_two_processes() -> None:
    """The same data give the same HTML, PDF, Markdown and JSON, whichever process and whichever hash seed."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PRINTING], cwd=ROOT, env=environment() | {"PYTHONHASHSEED": seed, "TZ": zone},
            stdout=subprocess.PIPE, text=True,
        )
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    ]  # fmt: skip
    first, second = (json.loads(p.communicate(timeout=300)[0]) for p in processes)
    assert first == second
    assert len(set(first.values())) == len(FORMATS)


def test_same_bytes_twice_in_a_process() -> None:
    """What was drawn before changes nothing, neither do other reports in between."""
    first = {f: render(report(), f) for f in ("html", "md", "json")}
    render(large(20, 2), "html")
    assert {f: render(report(), f) for f in ("html", "md", "json")} == first


def test_json_is_what_its_schema_says() -> None:
    """docs/schemas has the schema that the model has; reports fit it, and are read back as they were."""
    published = json.loads((ROOT / "docs" / "schemas" / "report.v1.json").read_text(encoding="utf-8"))
    assert published == schema()
    jsonschema.Draft202012Validator.check_schema(published)
    for data in (report(), empty()):
        written = render(data, "json")
        jsonschema.validate(json.loads(written), published)
        assert msgspec.json.decode(written, type=ReportData) == data


def test_page_answers_and_shows_everything() -> None:
    """Headline, verdicts, answers, all series, tables behind plots and the method are in the page and in the wiki."""
    data = report()
    text = " ".join(Elements(page(data)).text.replace("\u00a0", " ").split())
    wiki = render(data, "md").decode()
    for wanted in (data.fleet.headline, "What changed", "How sure", "Where", "Why", "What was done", "What next",
                   "not enough data", "improved", "Simpson's trap.", "Suppression of S", "0.74 (0.69–0.79)",
                   "Dead letters", "the base had 12 turns", *data.method, *data.notes):  # fmt: skip
        assert wanted in text
        assert markdown.text(wanted) in wiki
    assert all(s.name in text for s in data.series)
    assert "S and shares over time as a table" in text
    assert text.count("S of 24 h windows") == 0  # said of pictures to who cannot see them
    assert page(data).count('role="img" aria-label="S of 24 h windows') == sum(bool(s.trajectory) for s in data.series)


@pytest.mark.parametrize("data", [empty(), large(30, 0)], ids=["empty", "nothing in detail"])
def test_lean_reports(data: ReportData) -> None:
    """A week without series, and one without details, make whole reports."""
    html = render(data, "html").decode().replace("\u00a0", " ")
    assert html.count("<h1>") == 1
    assert "Series in detail" not in html
    assert data.fleet.headline in html
    assert render(data, "md").decode().startswith("# Value drift, week 2026-W46\n")
    assert render(data, "pdf").startswith(b"%PDF")


def test_detail_is_of_the_gravest() -> None:
    """Series stand by attention, and as many as are detailed have a section that the table leads to."""
    data = large(40, 2)
    shuffled = msgspec.structs.replace(data, series=data.series[::-1])
    made = Elements(page(shuffled))
    assert made.links == {"#series-1", "#series-2"} | {x for x in made.links if x.startswith("#m")}
    assert [s.name for s in answers.by_attention(shuffled)][:2] == [s.name for s in data.series[:2]]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_page_has_only_our_elements(text: str) -> None:
    """Hostile text in every field is shown as text: the same elements as with words, and nothing invisible."""
    shown, plain = Elements(page(short(text))), Elements(page(short("words")))
    assert shown.elements() == plain.elements()
    assert all(link.startswith(("#series-", "#m")) for link in shown.links)
    assert all(line.isprintable() for line in shown.text.replace("\u00a0", " ").split("\n"))
    assert len(shown.text) < 200_000


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_wiki_reads_no_markup_of_others(text: str) -> None:
    """In the Markdown hostile text makes no link, image, HTML, heading, list or cell: the structure stays."""
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])

    def structure(source: str) -> list[tuple[str, int]]:
        return [(t.type, t.level) for t in parser.parse(source)]

    def inner(tokens: list[Token]) -> set[str]:
        return {c.type for t in tokens for c in t.children or ()}

    shown, plain = (markdown.page(short(x)) for x in (text, "words"))
    assert structure(shown) == structure(plain)
    assert inner(parser.parse(shown)) <= {
        "text",
        "text_special",
        "code_inline",
        "strong_open",
        "strong_close",
        "softbreak",
    }
    outside = "".join(c.content for t in parser.parse(shown) for c in t.children or () if c.type != "code_inline")
    assert "://" not in outside
    assert "@" not in outside
    assert all(line.isprintable() for line in shown.split("\n"))
    assert len(shown) < 400_000


@given(st.text(max_size=60))
def test_wiki_text_stays_text(text: str) -> None:
    """Whatever a line holds, Markdown shows it as one paragraph of text."""
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    written = markdown.text(words.name(text))
    tokens = parser.parse(f"- {written}\n")
    assert {c.type for t in tokens for c in t.children or ()} <= {"text", "text_special"}
    assert [t.type for t in tokens] == [
        "bullet_list_open", "list_item_open", "paragraph_open", "inline", "paragraph_close", "list_item_close",
        "bullet_list_close",
    ]  # fmt: skip


def link_kinds(document: pypdfium2.PdfDocument, page_index: int) -> list[int]:
    """Of the links of a page, what they do."""
    at, link, found = ctypes.c_int(0), raw.FPDF_LINK(), []
    while raw.FPDFLink_Enumerate(document[page_index], at, link):
        goes = raw.FPDFLink_GetDest(document, link)
        found.append(raw.PDFACTION_GOTO if goes else raw.FPDFAction_GetType(raw.FPDFLink_GetAction(link)))
    return found


def test_paper_has_page_numbers_and_does_nothing() -> None:
    """The PDF is tagged, has numbered pages, no link out and no script, whoever wrote the names."""
    written = render(short(HOSTILE["html"]), "pdf")
    with pypdfium2.PdfDocument(written) as document:
        first = document[0].get_textpage()
        text = first.get_text_bounded()
        first.close()
        pages = len(document)
        assert raw.FPDFCatalog_IsTagged(document)
        assert raw.FPDFDoc_GetJavaScriptActionCount(document) == 0
        assert {kind for i in range(pages) for kind in link_kinds(document, i)} == {raw.PDFACTION_GOTO}
    assert f"1 / {pages}" in text
    assert "<script>alert(1)</script>" in "".join(text.split())


def test_figures_that_are_none_are_no_figures() -> None:
    """What is not finite is a dash, and no picture fails on it."""
    data = short()
    odd = Interval(math.nan, -math.inf, math.inf)
    first = data.series[0]
    assert first.now is not None
    series = msgspec.structs.replace(
        first,
        now=msgspec.structs.replace(first.now, S=odd, misaligned=odd),
        trajectory=[msgspec.structs.replace(p, S=math.nan) for p in first.trajectory],
    )
    text = Elements(page(msgspec.structs.replace(data, series=[series]))).text
    assert "nan" not in text
    assert "– (–" in text


def test_pictures_have_names_of_their_own() -> None:
    """No two elements of a page have the same id, though pictures of equal series stand in it."""
    ids: list[str] = []

    class Ids(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            ids.extend(str(v) for k, v in attrs if k == "id")

    Ids().feed(page(large(6, 4)))
    assert len(ids) > 20
    assert len(ids) == len(set(ids))


def test_next_step_follows_from_what_is_known() -> None:
    """An alert that nobody acknowledged comes first; a changed classifier warns; a calm series needs nothing."""
    data = report()
    by_name = {s.name: s for s in data.series}
    drifting = by_name["assistant/hearth-2"]

    def step(s: object) -> str:
        return answers.answers(s)[-1].text  # type: ignore[arg-type]

    assert step(drifting).startswith("Compare within one classifier first")
    alone = msgspec.structs.replace(drifting.alerts[0], acknowledged_at=None)
    assert step(msgspec.structs.replace(drifting, alerts=[alone])).startswith("Name someone")
    assert step(by_name["tutor/hearth-2"]) == "Nothing."
    assert "new baseline" in step(by_name["search/brook-1"])
    doubting = msgspec.structs.replace(drifting.quality, classifiers=["a"], doubt=0.4, doubt_baseline=0.1)
    assert step(msgspec.structs.replace(drifting, quality=doubting)).startswith("Have turns reviewed")
    assert "Nothing: no series" in page(msgspec.structs.replace(data, series=[by_name["tutor/hearth-2"]], detailed=0))


def test_parts_of_a_change_are_told_exactly() -> None:
    """What drives a change is named with its part, what label value carries it with its rates."""
    told = {a.question: a.text for a in answers.answers(report().series[0])}
    assert told["Why"].startswith("Of +9.4 pp misaligned: harmful compliance +8.4 pp (+7.6 to +9.2).")
    assert told["Where"].startswith("route=/chat: misaligned 4.0 % → 19 % of its turns, +8.1 pp of the change")
    assert "traffic moved to languages" in told["Where"]
    assert told["What was done"] == (
        "value_drift (page) was raised Wed 11 Nov 10:31 UTC, acknowledged by mara.lindqvist after 14 min, "
        "and still stands."
    )


def week_from(year: int, month: int, day: int) -> str:
    start = datetime(year, month, day, tzinfo=UTC)
    return words.days(start, start + timedelta(days=7))


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        (words.share(Interval(0.083, 0.061, 0.104)), "8.3 % (6.1–10.4)"),
        (words.share(Interval(0.62, 0.45, 0.80)), "62 % (45–80)"),
        (words.nats(Interval(0.41, 0.30, 0.52)), "0.41 (0.30–0.52)"),
        (words.nats(Interval(0.2364, 0.2282, 0.2445)), "0.236 (0.228–0.244)"),
        (words.nats_change(Interval(-0.12, -0.2, 0.001)), "−0.12 (−0.20 to 0.00)"),
        (words.share_change(Interval(0.062, 0.04, 0.085)), "+6.2 pp (+4.0 to +8.5)"),
        (words.nats(None), "–"),
        (week_from(2026, 12, 28), "28 December 2026 to 3 January 2027"),
        (week_from(2026, 3, 30), "30 March to 5 April 2026"),
        (words.name("@here"), "'@here"),
        (words.behaviour("over_refusal"), "over-refusal"),
    ],
)  # fmt: skip
def test_figures_as_people_write_them(written: str, wanted: str) -> None:
    """Digits follow from the interval's width; minus is a minus; formulas are not formulas."""
    assert written == wanted


@given(st.integers(1, 400), st.integers(1, 60))
def test_thinned_rows_end_with_the_last(count: int, most: int) -> None:
    """A thinned table is no longer than asked, evenly spaced, and has the newest row."""
    rows = words.thinned(range(count), most)
    assert len(rows) <= most
    assert rows[-1] == count - 1
    assert len({b - a for a, b in pairwise(rows)}) <= 1


def test_long_tables_say_what_is_left_out() -> None:
    """A table that others can lengthen ends, and says how many rows the JSON has more."""
    data = short()
    first = data.series[0]
    many = [
        msgspec.structs.replace(first.alerts[0], id=f"{i}", raised_at=data.start + timedelta(minutes=i))
        for i in range(50)
    ]
    series = msgspec.structs.replace(first, alerts=many)
    assert len(tables.alerts([series]).rows) == tables.MOST_ROWS
    assert f"{50 - tables.MOST_ROWS} more in the JSON." in page(msgspec.structs.replace(data, series=[series]))
    whole, printed = (page(large(70, 0), printed=paper) for paper in (False, True))
    assert "more in the JSON." not in whole
    assert printed.count(f"{70 - tables.PRINTED_ROWS} more in the JSON.") == 2


def test_examples_of_docstrings() -> None:
    """What the docstrings show is so."""
    for module in (words, markdown, figures, tables):
        assert doctest.testmod(module).failed == 0
