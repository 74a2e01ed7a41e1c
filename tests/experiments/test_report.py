import msgspec
import pytest

from experiments import export, report
from experiments.codes import HealthCode, ReasonCode, Verdict
from experiments.export import COLUMNS
from experiments.report import Report
from stats.errors import Problem
from tests.experiments.rows import build, design, measured, spec

MINIMUM = {
    "": "schema experiment revision as_of method control arms srm metrics decision",
    "arms": "variant assigned exposed matured",
    "srm": "p_value expected observed problem",
    "metrics": "metric kind role direction arms comparisons",
    "metrics.arms": "variant segment n mean se",
    "metrics.comparisons": "variant control segment absolute relative se p_value p_adjusted significant "
    "probability_better expected_loss problem",
    "metrics.comparisons.absolute": "estimate lower upper",
    "metrics.comparisons.relative": "estimate lower upper",
    "decision": "verdict variant segments reasons value_per_month",
}


def made(rows: dict | None = None) -> Report:
    rows = rows or {("a", "t"): [1, 2, 4, 9], ("a", "c"): [1, 2, 3, 5], ("b", "t"): [1, 2], ("b", "c"): [1]}
    shares = {s: {"c": 0.5, "t": 0.5} for s in "ab"}
    return build(design(shares), (spec(), measured(rows)))


def parts(document: object, path: str) -> list[dict]:
    for name in path.split(".") if path else []:
        found = [part[name] for part in document] if isinstance(document, list) else [document[name]]
        document = [item for part in found for item in (part if isinstance(part, list) else [part])]
    return [part for part in (document if isinstance(document, list) else [document]) if part is not None]


@pytest.mark.parametrize("path", MINIMUM)
def test_every_key_of_the_contract_is_there(path: str) -> None:
    found = parts(msgspec.json.decode(report.encode(made())), path)
    assert found
    assert all(set(MINIMUM[path].split()) <= set(part) for part in found)


def test_schema_refuses_an_unknown_code() -> None:
    """The codes are closed sets: the schema lists each of them, and decoding knows no other."""
    definitions = report.json_schema()["$defs"]
    for name, codes in (
        ("Verdict", Verdict),
        ("ReasonCode", ReasonCode),
        ("HealthCode", HealthCode),
        ("Problem", Problem),
    ):
        assert set(definitions[name]["enum"]) == {code.value for code in codes}
    body = report.encode(made()).replace(b'"verdict":"', b'"verdict":"perhaps_')
    with pytest.raises(msgspec.ValidationError):
        report.decode(body)


def test_decoding_gives_back_what_was_encoded() -> None:
    assert report.decode(report.encode(made())) == made()


def test_rows_are_the_comparisons_with_fixed_columns() -> None:
    found = list(export.rows(made()))
    assert [tuple(row) for row in found] == [COLUMNS] * 3
    assert [(row["segment"], row["n"], row["n_control"], row["problem"]) for row in found] == [
        (None, 6, 5, None),
        ("a", 4, 4, None),
        ("b", 2, 1, "not_enough_data"),
    ]
    whole, _, thin = found
    assert whole["absolute"] == pytest.approx(19 / 6 - 12 / 5)
    assert (whole["mean"], whole["mean_control"]) == (pytest.approx(19 / 6), pytest.approx(12 / 5))
    assert {name for name, value in thin.items() if value is None} == {
        *("mean_control", "absolute", "absolute_lower", "absolute_upper", "relative", "relative_lower"),
        *("relative_upper", "se", "p_value", "p_adjusted", "significant", "probability_better", "expected_loss"),
        *("adjusted_lower", "adjusted_upper", "shrunk"),
    }


def test_rows_carry_the_adjusted_interval_and_the_shrunk_effect() -> None:
    rows = {(s, v): [1.0 + (v == "t"), 2, 4, 9] for s in "ab" for v in "tc"}
    whole, *segments = export.rows(made(rows))
    assert (whole["adjusted_lower"], whole["adjusted_upper"]) == (whole["absolute_lower"], whole["absolute_upper"])
    assert whole["shrunk"] is None
    comparisons = made(rows).metrics[0].comparisons[1:]
    for row, comparison in zip(segments, comparisons, strict=True):
        assert comparison.adjusted is not None
        assert comparison.shrunk is not None
        found = row["adjusted_lower"], row["adjusted_upper"], row["shrunk"]
        assert found == (comparison.adjusted.lower, comparison.adjusted.upper, comparison.shrunk.estimate)
        assert found[0] < row["absolute_lower"]


def test_the_primary_metric_is_found_by_its_role() -> None:
    assert made().primary().metric == "m"
