"""From the options of the command line to the body of a request, which is then checked as everybody's."""

from collections.abc import Mapping
from typing import Any

from experiments.errors import FieldProblem, InvalidDocument

_SAME = (
    "experiment",
    "effect",
    "lift",
    "margin",
    "direction",
    "arms",
    "weights",
    "metrics",
    "alpha",
    "correction",
    "power",
    "looks",
    "users",
    "weekly",
    "window_days",
    "weeks",
)


def body(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request's body; raise InvalidDocument where options do not go together."""
    given = {name: value for name, value in options.items() if value is not None}
    result = {name: given[name] for name in _SAME if name in given}
    if "method" in given:
        result["method"] = given["method"].replace("-", "_")
    if "rho" in given:
        result["correlation"] = given["rho"]
    if "spending" in given or "spending_parameter" in given:
        result["spending"] = _named(given, name="spending", parameter="spending_parameter")
    if given.keys() & {"touches", "per", "touches_needed"}:
        result["touch_cap"] = {"per": "week"} | _named(given, touches="touches", per="per", needed="touches_needed")
    bases = _baselines(given)
    if len(bases) + ("experiment" in given) != 1:
        remedy = "give one of --experiment, --baseline, --mean with --sd, --numerator with --denominator, --quantile, "
        problem = FieldProblem("baseline", [base["kind"] for base in bases], "inconsistent", remedy + "--metric")
        raise InvalidDocument([problem], "command")
    return result | ({"baseline": bases[0]} if bases else {})


def _baselines(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the options say of a baseline; a part that is missing is left to the checks of the request."""
    found: list[dict[str, Any]] = []
    if "baseline" in given:
        found.append({"kind": "conversion", "rate": given["baseline"]})
    if given.keys() & {"mean", "sd"}:
        found.append({"kind": "mean"} | _named(given, mean="mean", sd="sd"))
    if given.keys() & {"numerator", "denominator", "parts_correlation"}:
        parts = {"kind": "ratio", "correlation": given.get("parts_correlation", 0.0)}
        for part in ("numerator", "denominator"):
            if part in given:
                parts |= {f"{part}_mean": given[part][0], f"{part}_sd": given[part][1]}
        found.append(parts)
    if "quantile" in given:
        quantile, value, density = given["quantile"]
        found.append({"kind": "quantile", "quantile": quantile, "value": value, "density": density})
    if given.keys() & {"metric", "segment"}:
        found.append({"kind": "measured"} | _named(given, metric="metric", segment="segment"))
    return found


def _named(given: Mapping[str, Any], **names: str) -> dict[str, Any]:
    return {field: given[option] for field, option in names.items() if option in given}
