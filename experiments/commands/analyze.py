"""The command ``upturn analyze``, and how a report is printed."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from experiments.report import Report

_Command = Callable[..., None]


def _pairs(_context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    result = {}
    for value in values:
        name, _, number = value.rpartition("=")
        try:
            result[name] = float(number)
        except ValueError:
            name = ""
        if not name or not 0 <= result[name] < math.inf:
            raise click.BadParameter(f"{value!r}: write NAME=NUMBER, the number 0 or more", param=option)
    return result


def _levels(_context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    result = {}
    for value in values:
        column, equals, level = value.partition("=")
        if not (column and equals):
            raise click.BadParameter(f"{value!r}: write COL=LEVEL", param=option)
        result[column] = level
    return result


def numbers(_context: click.Context, option: click.Parameter, value: str | None) -> list[float] | None:
    """Read numbers with commas between, for an option."""
    try:
        return None if value is None else [float(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r}: write numbers with commas between", param=option) from None


def _prior(context: click.Context, option: click.Parameter, value: str | None) -> list[float] | None:
    given = numbers(context, option, value)
    if given is not None and len(given) != 2:
        raise click.BadParameter(f"{value!r}: write MEAN,SD of the lift, such as 0,0.1", param=option)
    return given


def pairs_option(name: str, metavar: str, help_text: str) -> Callable[[_Command], _Command]:
    """Return an option that takes ``NAME=NUMBER``, several times."""
    return click.option(name, multiple=True, metavar=metavar, callback=_pairs, help=help_text)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--variant", metavar="COL", help="Column that tells each user's variant.")
@click.option("--control", metavar="NAME", help="Its value for the control.")
@click.option("--factor", "factors", multiple=True, metavar="COL", help="Instead: column of one factor of several.")
@click.option(
    "--baseline",
    multiple=True,
    metavar="COL=LEVEL",
    callback=_levels,
    help="The level of a factor that is the control.",
)
@click.option("--unit", metavar="COL", help="Column of the user, when a user has several rows.")
@click.option("--cluster", metavar="COL", help="Column of what was randomised, when that was a household or store.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    required=True,
    metavar="NAME=KIND:COL[/COL]",
    help="conversion:COL, mean:COL, ratio:COL/COL, quantile(0.9):COL, time_to_event:DAYS/HAPPENED or "
    "funnel:STEP/STEP…; the first is the primary one.",
)
@pairs_option("--cap", "NAME=VALUE", "Cut this mean's heavy tail at VALUE.")
@pairs_option("--cap-percentile", "NAME=P", "Cut it at a percentile of the numbers above zero, such as 99.9.")
@pairs_option("--guardrail", "NAME=MARGIN", "This metric may lose at most MARGIN.")
@click.option("--lower-is-better", multiple=True, metavar="NAME", help="This metric should go down.")
@click.option("--higher-is-better", multiple=True, metavar="NAME", help="This time to an event should be long.")
@click.option(
    "--covariate", "covariates", multiple=True, metavar="COL", help="Known before exposure: reduces the variance."
)
@click.option("--segment", "segments", multiple=True, metavar="COL", help="Effects for each of its values too.")
@click.option("--received", metavar="COL", help="0/1: the user received the treatment. Adds the effect on those.")
@click.option("--triggered", metavar="COL", help="0/1: it would have been sent, in the control too.")
@pairs_option("--dose", "NAME=D", "Touches a week of a variant: adds the response to the frequency.")
@click.option(
    "--method",
    type=click.Choice(["fixed", "sequential", "group-sequential", "bayes"]),
    default="fixed",
    show_default=True,
    help="fixed: one look, as with a finished file; sequential: the file grows and is looked at again; "
    "group-sequential: looked at when planned; bayes: posteriors.",
)
@click.option(
    "--planned-users",
    type=click.IntRange(2),
    help="The planned size, at which a sequential interval is tightest (default: the file's).",
)
@click.option("--looks", metavar="SHARE,…", callback=numbers, help="Of a group-sequential plan: 0.25,0.5,1.")
@click.option(
    "--spending",
    type=click.Choice(["obrien_fleming", "pocock", "hwang_shih_decani", "power"]),
    help="How a group-sequential plan spends alpha.  [default: obrien_fleming]",
)
@click.option("--spending-parameter", type=float, help="Of hwang_shih_decani and power.")
@click.option("--prior", metavar="MEAN,SD", callback=_prior, help="Of the lift, with bayes (default: flat).")
@click.option("--alpha", type=click.FloatRange(0, 0.5, min_open=True, max_open=True), default=0.05, show_default=True)
@click.option("--correction", type=click.Choice(["holm", "bh", "none"]), help="[default: holm; none with bayes]")
@click.option("--all-pairs", is_flag=True, help="Compare all pairs of variants.")
@pairs_option("--weights", "NAME=W", "The designed split (default: equal).")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv", "parquet", "html"]),
    default="table",
    show_default=True,
)
def analyze(file: Path, *, form: str, **options: Any) -> None:
    """Analyse any CSV or Parquet file: no server, no set-up."""
    from experiments import files

    question = files.Question(
        variant=options["variant"],
        control=options["control"],
        metrics=[files.FileMetric.parse(text) for text in options["metrics"]],
        unit=options["unit"],
        cluster=options["cluster"],
        factors=_baselines(options["factors"], options["baseline"]),
        covariates=options["covariates"],
        segments=options["segments"],
        weights=options["weights"] or None,
        doses=options["dose"],
        received=options["received"],
        triggered=options["triggered"],
        guardrails=options["guardrail"],
        lower_is_better=options["lower_is_better"],
        higher_is_better=options["higher_is_better"],
        caps=options["cap"],
        cap_percentiles=options["cap_percentile"],
        method=options["method"].replace("-", "_"),
        planned_users=options["planned_users"],
        looks=options["looks"],
        spending=options["spending"],
        spending_parameter=options["spending_parameter"],
        prior=options["prior"],
        alpha=options["alpha"],
        correction=options["correction"],
        all_pairs=options["all_pairs"],
    )
    print_report(files.analyse(file, question), form)


def _baselines(factors: tuple[str, ...], levels: dict[str, str]) -> dict[str, str]:
    missing = [column for column in factors if column not in levels]
    if missing:
        raise click.UsageError(f"give --baseline {missing[0]}=LEVEL: the level of that factor in the control")
    extra = [column for column in levels if column not in factors]
    if extra:
        raise click.UsageError(f"--baseline {extra[0]}: give --factor {extra[0]} too")
    return {column: levels[column] for column in factors}


def print_report(report: "Report", form: str) -> None:
    """Print a report as a ``table``, ``json``, ``csv``, ``parquet``, or as one page of ``html``."""
    from experiments import export, printout, terminal
    from experiments.report import encode

    match form:
        case "table":
            terminal.show_report(report)
        case "csv":
            click.echo(export.report_csv(report), nl=False)
        case "parquet":
            click.echo(export.report_parquet(report), nl=False)
        case "html":
            click.echo(printout.page(report).encode(), nl=False)
        case _:
            click.echo(encode(report), nl=False)
