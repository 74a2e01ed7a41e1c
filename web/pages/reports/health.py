"""Can the numbers be trusted? What was checked, what was found, and what to do about it."""

from dataclasses import dataclass

from experiments.report import Report
from web.formats import Formats
from web.languages import gettext
from web.pages.reports.checks import Made, checks
from web.pages.reports.parts import Grid, grid
from web.pages.reports.verdict import names
from web.pages.reports.waves import history


@dataclass(frozen=True, slots=True)
class Health:
    """``made``, ``striking``: how many checks; ``checks``: with what was found without one, ``found`` if anything was.

    ``split_p``: of the split over all users; ``anytime_p``: however often one looks; ``waves``: each one.
    """

    found: bool
    made: int
    striking: int
    checks: list[Made]
    split: Grid
    split_ok: bool
    split_p: str
    anytime_p: str
    waves: Grid | None


def health(report: Report, formats: Formats) -> Health:
    """Return what is known of the health of the data."""
    srm = report.srm
    return Health(
        found=bool(report.health),
        made=len(report.checks),
        striking=sum(not check.passed for check in report.checks),
        checks=checks(report, formats),
        split=_split(report, formats),
        split_ok=srm.problem is None,
        split_p=formats.p_value(srm.p_value) if srm.p_value is not None else "",
        anytime_p=formats.p_value(srm.anytime_p) if srm.anytime_p is not None else "",
        waves=history(report, formats),
    )


def _split(report: Report, formats: Formats) -> Grid:
    """The users of each variant beside those whom the plan expects."""
    srm, named = report.srm, names(report)
    rows = [
        [
            named[variant],
            formats.count(round(expected)),
            formats.count(srm.observed.get(variant, 0)),
            formats.change("", srm.observed.get(variant, 0) - round(expected), 10),
        ]
        for variant, expected in srm.expected.items()
    ]
    return grid([gettext("Variant")], [gettext("Expected"), gettext("Actual"), gettext("Difference")], rows)
