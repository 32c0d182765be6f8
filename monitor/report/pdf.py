"""A page on paper: the same report through WeasyPrint, with the fonts of matplotlib, so that any machine makes the
same bytes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

_FAMILY: Final = "Report Sans"
_FACES: Final = (("DejaVuSans.ttf", 400), ("DejaVuSans-Bold.ttf", 700))


def pdf(page: str) -> bytes:
    """The PDF of a printed page (monitor.report.html), tagged for screen readers.

    Nothing is fetched but the two fonts, by their own style sheet. The same page gives the same bytes.
    """
    from weasyprint import CSS, HTML
    from weasyprint.text.fonts import FontConfiguration

    logging.getLogger("weasyprint").setLevel(logging.ERROR)  # of CSS that only browsers know
    fonts = FontConfiguration()
    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    faces = "".join(
        f'@font-face {{ font-family: "{_FAMILY}"; font-weight: {weight}; src: url("{(folder / file).as_uri()}") }}\n'
        for file, weight in _FACES
    )
    style = CSS(string=f'{faces} html, svg text {{ font-family: "{_FAMILY}" !important }}', font_config=fonts)
    document = HTML(string=page, url_fetcher=_refuse).render(stylesheets=[style], font_config=fonts)
    written = document.write_pdf(pdf_tags=True)
    assert isinstance(written, bytes)
    return written


def _refuse(url: str, *_: Any, **__: Any) -> Any:
    raise ValueError("a report fetches nothing")
