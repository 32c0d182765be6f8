"""A report opened in a real browser: nothing runs, nothing leaves, everybody can read it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from monitor.report.html import POLICY, page
from tests.notice_cases import HOSTILE
from tests.report_cases import report, rewritten, short

CHROMIUM: Final = shutil.which("chromium")
ARGUMENTS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PAYLOADS: Final = {
    "handlers": "<img src=x onerror='window.ran=1'><svg onload='window.ran=1'><details open ontoggle='window.ran=1'>",
    "attributes": "\"' autofocus tabindex=0 onfocus='window.ran=1' onmouseover='window.ran=1' x=\"",
    "closing": "</title></style></svg></table><script>window.ran=1</script><style>*{background:url(//e.example/x)}",
    "links": "<a href='javascript:window.ran=1'>x</a><meta http-equiv=refresh content='0;url=https://e.example'>",
    "frames": "<iframe srcdoc='<script>parent.ran=1</script>'></iframe><base href='https://e.example/'><form action=x>",
    "command": "=cmd|' /C calc'!A0",
}
META: Final = '<meta http-equiv="Content-Security-Policy"'
SIZES: Final = ((1280, "light"), (1280, "dark"), (400, "light"), (400, "dark"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, which `make test` installs."""
    assert CHROMIUM is not None, "no chromium on the path; as root: apt-get install chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield started
        started.close()


class Opened:
    """A page that is open, and all that happened on it."""

    def __init__(self, tab: Page, path: Path) -> None:
        self.happened: list[str] = []
        tab.on("dialog", lambda d: (self.happened.append(f"dialog {d.message}"), d.dismiss()))
        tab.on("request", lambda r: self.happened.append(f"request {r.url}"))
        tab.on("console", lambda m: self.happened.append(f"console {m.text}"))
        tab.on("pageerror", lambda e: self.happened.append(f"error {e}"))
        tab.on("popup", lambda p: self.happened.append(f"popup {p.url}"))
        tab.goto(path.as_uri())
        # what handlers wait for: openings, focus, the pointer
        tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        for element in tab.query_selector_all("a, summary, h3")[:5]:
            element.hover()
            element.focus()
        self.happened.remove(f"request {path.as_uri()}")
        if tab.evaluate("window.ran"):
            self.happened.append("a script ran")


def opened(browser: Browser, folder: Path, html: str) -> list[str]:
    path = folder / "report.html"
    path.write_text(html, encoding="utf-8")
    tab = browser.new_page()
    try:
        return Opened(tab, path).happened
    finally:
        tab.close()


def test_detection_works(browser: Browser, tmp_path: Path) -> None:
    """A page that did not escape would be caught, yet its policy lets nothing run; ours does nothing."""
    assert opened(browser, tmp_path, page(short())) == []
    html = page(short()).replace("<main>", f"<main>{PAYLOADS['handlers']}")
    assert "a script ran" in opened(browser, tmp_path, unguarded(html))
    assert "a script ran" not in opened(browser, tmp_path, html)


def unguarded(html: str) -> str:
    """The page without its policy, as a browser sees it that does not know such."""
    return html[: html.index(META)] + html[html.index(">", html.index(META)) + 1 :]


@pytest.mark.parametrize("text", [*PAYLOADS.values(), *HOSTILE.values()], ids=[*PAYLOADS, *HOSTILE])
def test_nothing_runs(browser: Browser, tmp_path: Path, text: str) -> None:
    """Hostile text in every field: no script, dialog, request or error, though the browser knows no policy."""
    html = page(rewritten(short(detailed=1), lambda _: text))
    assert POLICY.startswith("default-src 'none'")
    assert html.count(META) == 1
    assert "<script" not in html
    assert opened(browser, tmp_path, unguarded(html)) == []


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_everybody_can_read_it(browser: Browser, tmp_path: Path, width: int, scheme: str) -> None:
    """No violation of axe's rules, tables behind plots open, no scrolling sideways; light and dark, wide and narrow."""
    path = tmp_path / "report.html"
    path.write_text(page(report(detailed=3)), encoding="utf-8")
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    tab = context.new_page()
    tab.goto(path.as_uri())
    tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    found = Axe().run(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
    assert found.violations_count == 0, found.generate_report()
    assert len(found.response["passes"]) > 15


@pytest.mark.parametrize("width", [1280, 1120, 1024, 400])
def test_long_names_do_not_widen_the_page(browser: Browser, tmp_path: Path, width: int) -> None:
    """Names without a place to break do not make a page scroll sideways."""
    path = tmp_path / "report.html"
    path.write_text(page(rewritten(report(detailed=2), lambda t: t.replace(" ", "_") * 20)), encoding="utf-8")
    tab = browser.new_page(viewport={"width": width, "height": 900})
    tab.goto(path.as_uri())
    tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    wide = tab.evaluate("document.documentElement.scrollWidth")
    tab.close()
    assert wide <= width
