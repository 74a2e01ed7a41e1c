import base64
import re
from html.parser import HTMLParser

from experiments import printout
from experiments.report import Report
from tests.experiments.rows import build, design, measured, spec

ODD = "<script>alert(1)</script> & 长"
ROWS = {("a", "t"): [10, 12, 14, 19], ("a", "c"): [1, 2, 3, 5], ("b", "t"): [11, 12, 13], ("b", "c"): [1, 1, 3]}
VOID = {"meta", "img", "br"}


def odd() -> Report:
    plan = design({s: {"c": 0.5, "t": 0.5} for s in ("a", "b")}, name=ODD, variants={"c": ODD, "t": "T"})
    return build(plan, (spec(name=ODD), measured(ROWS)))


class Page(HTMLParser):
    """Tags, their attributes and the text; every tag that opens closes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href") or name.startswith("on")]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_needs_no_network_and_runs_nothing() -> None:
    body = printout.page(odd())
    page = Page(body)
    assert body.startswith("<!doctype html>")
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert page.links
    assert all(link.startswith("data:image/svg+xml;base64,") for link in page.links)
    assert "default-src 'none'" in body
    assert "url(" not in body


def test_names_are_shown_as_they_are_written() -> None:
    page = Page(printout.page(odd()))
    assert page.text.count(ODD) >= 4
    (drawing,) = (base64.b64decode(link.split(",", 1)[1]).decode() for link in page.links)
    assert "<script" not in drawing
    assert "&lt;script&gt;" in drawing


def test_a_page_shows_the_verdict_and_every_effect() -> None:
    report = odd()
    page = Page(printout.page(report))
    assert "ship T to everyone" in page.text
    for c in report.metrics[0].comparisons:
        assert c.absolute is not None
        assert f"{c.absolute.estimate:+.2f} [{c.absolute.lower:+.2f}, {c.absolute.upper:+.2f}]" in page.text


def test_a_part_is_the_body_of_the_page() -> None:
    report = odd()
    part = printout.part(report)
    assert not re.search("<html|<body|<!doctype", part)
    assert part.strip() in printout.page(report)


def test_an_effect_that_is_none_has_no_drawing() -> None:
    same = {(None, "t"): [1, 1, 1], (None, "c"): [1, 1, 1]}
    page = Page(printout.page(build(design(), (spec(), measured(same)))))
    assert not page.links
    assert "zero variance" in page.text
