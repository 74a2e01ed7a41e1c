"""What some designs show besides: the response to frequency, the factors of a tactic, tactics that reach few."""

from experiments.report import Complier, DoseResponse, MetricReport, Report, Triggered
from web import charts, sentences
from web.formats import Formats, precision
from web.languages import gettext
from web.pages.reports.parts import Part, effect, effect_or_problem, grid, p_is, p_value
from web.pages.reports.verdict import names
from web.pages.reports.waves import moved


def sections(report: Report, formats: Formats) -> list[Part]:
    """Return the sections that the experiment's design asks for."""
    made = (
        moved(report, formats),
        _frequency(report, formats),
        _factors(report, formats),
        _compliers(report, formats),
        _triggered(report, formats),
    )
    return [part for part in made if part is not None]


def _frequency(report: Report, formats: Formats) -> Part | None:
    drawn = charts.responding(report)
    if not drawn:
        return None
    pictures = [charts.frequency(metric, formats) for metric in drawn]
    rows = [
        [str(row["metric"]), formats.plain(float(str(row["dose"])), 3), str(row["value"]), str(row["interval"])]
        for picture in pictures
        for row in picture.rows
    ]
    said = [
        text
        for metric in drawn
        if metric.frequency
        for text in _response(metric, metric.frequency, report.method.alpha, formats)
    ]
    return Part(
        "frequency",
        gettext("How often to reach out"),
        said,
        gettext(
            "The value at each frequency tested, the gain above and the harm below, with a band that covers all of "
            "them together. Grey: where the best frequency lies."
        ),
        pictures,
        grid(
            [gettext("Metric")],
            [gettext("Touches a week"), gettext("Value"), gettext("Interval")],
            rows,
        ),
    )


def _response(metric: MetricReport, found: DoseResponse, alpha: float, formats: Formats) -> list[str]:
    facts = {
        "metric": metric.name,
        "change": effect(metric.unit, found.trend, formats),
        "p": p_is(found.trend_p, formats),
        "shape": sentences.known(sentences.SHAPES, found.shape),
    }
    said = [gettext("%(metric)s: %(change)s with each further touch a week, %(p)s; %(shape)s.", **facts)]
    if found.departure is not None and found.departure.p_value < alpha:
        p = p_is(found.departure.p_value, formats)
        said.append(gettext("%(metric)s: not every touch changes it alike (%(p)s).", metric=metric.name, p=p))
    if metric.role == "guardrail":
        return said
    if found.best is not None:
        facts |= {
            "best": formats.plain(found.best.estimate, 3),
            "lower": formats.plain(found.best.lower, 3),
            "upper": formats.plain(found.best.upper, 3),
        }
        said.append(
            gettext("%(metric)s: best at about %(best)s touches a week, between %(lower)s and %(upper)s.", **facts)
        )
    elif found.best_problem is not None:
        reason = sentences.known(sentences.PROBLEMS, found.best_problem)
        said.append(gettext("%(metric)s: %(reason)s", metric=metric.name, reason=reason))
    tested = formats.names(formats.plain(dose, 3) for dose in found.best_tested)
    said.append(gettext("%(metric)s: of those tested, the best may be %(tested)s a week.", tested=tested, **facts))
    return said


def _factors(report: Report, formats: Formats) -> Part | None:
    metric = report.primary()
    if metric.factorial is None:
        return None
    said = []
    if metric.factorial.interactions is not None:
        p = p_is(metric.factorial.interactions.p_value, formats)
        if metric.factorial.interactions.p_value < report.method.alpha:
            said.append(gettext("The factors work on each other (%(p)s): read them together, not one by one.", p=p))
        else:
            said.append(gettext("No evidence that the factors work on each other (%(p)s): their effects add up.", p=p))
    if any(entry.assumed for entry in metric.factorial.effects):
        said.append(gettext("Some combinations were not tested; interactions of more factors are taken to be none."))
    rows = [
        [
            charts.levels(entry.levels),
            gettext("interaction") if len(entry.levels) > 1 else gettext("main effect"),
            effect_or_problem(metric.unit, entry.absolute, entry.problem, formats, precision(metric)),
            p_value(entry.p_value, formats),
        ]
        for entry in metric.factorial.effects
    ]
    return Part(
        "factors",
        gettext("What each factor brings: %(metric)s", metric=metric.name),
        said,
        gettext("Each against the level of control, averaged over the other factors."),
        [charts.factors(report, metric, formats)],
        grid([gettext("Effect of"), gettext("Kind")], [gettext("Change"), gettext("p")], rows),
    )


def _compliers(report: Report, formats: Formats) -> Part | None:
    if not report.compliers:
        return None
    metric, named = report.primary(), names(report)

    def row(entry: Complier) -> list[str]:
        return [
            named[entry.variant],
            *("–" if share is None else formats.share(share) for share in (entry.received, entry.received_control)),
            effect_or_problem(metric.unit, entry.effect, entry.problem, formats),
            p_value(entry.p_value, formats),
        ]

    return Part(
        "compliers",
        gettext("Those who were reached: %(metric)s", metric=metric.name),
        [],
        gettext(
            "The effects above are on everyone assigned. Here the same effect is put down to those whom the variant "
            "reached, as if it did nothing to the others (instrumental variable). Nobody is left out, so the groups "
            "stay comparable."
        ),
        grid=grid(
            [gettext("Variant")],
            [gettext("Reached"), gettext("Reached in control"), gettext("Change per person reached"), gettext("p")],
            [row(entry) for entry in report.compliers],
        ),
    )


def _triggered(report: Report, formats: Formats) -> Part | None:
    if not report.triggered:
        return None
    metric, named = report.primary(), names(report)

    def row(entry: Triggered) -> list[str]:
        return [
            named[entry.variant],
            formats.count(entry.users),
            formats.count(entry.users_control),
            effect_or_problem(metric.unit, entry.effect, entry.problem, formats),
            p_value(entry.p_value, formats),
            p_value(entry.balance_p, formats),
        ]

    return Part(
        "triggered",
        gettext("Those for whom the trigger fired: %(metric)s", metric=metric.name),
        [],
        gettext(
            "Only users whom the treatment could change, control users (ghosts) included. It is shown only while the "
            "trigger fires equally often in all variants."
        ),
        grid=grid(
            [gettext("Variant")],
            [
                gettext("Users"),
                gettext("Users in control"),
                gettext("Change"),
                gettext("p"),
                gettext("p of unequal firing"),
            ],
            [row(entry) for entry in report.triggered],
        ),
    )
