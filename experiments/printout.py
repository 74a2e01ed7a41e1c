"""A report as one page of HTML that needs no network and runs no script, to be mailed or printed."""

import base64
import io
from collections.abc import Iterator

from experiments import charts, wording
from experiments.report import MetricReport, Report


def page(report: Report) -> str:
    """Return the whole page."""
    return _render(report, whole=True)


def part(report: Report) -> str:
    """Return what stands on the page, to be put into another one."""
    return _render(report, whole=False)


def _render(report: Report, *, whole: bool) -> str:
    from jinja2 import Environment, PackageLoader

    def images(metric: MetricReport) -> Iterator[tuple[str, str]]:
        for title, chart in charts.of(report, metric):
            yield title, image(chart)

    templates = Environment(loader=PackageLoader("experiments"), autoescape=True, trim_blocks=True)
    template = templates.get_template("report.html")
    return template.render(report=report, words=wording, images=images, whole=whole)


def image(chart: object) -> str:
    """Return a chart as the address of an image of its own, since the drawings in one page would share their names."""
    drawn = io.StringIO()
    chart.save(drawn, format="svg")  # type: ignore[attr-defined]
    return f"data:image/svg+xml;base64,{base64.b64encode(drawn.getvalue().encode()).decode()}"
