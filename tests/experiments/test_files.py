import json
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import statsmodels.api as sm

from experiments import report, reports
from experiments.demo import hillstrom
from experiments.errors import InvalidDocument
from experiments.files import FileMetric, Question, analyse
from experiments.report import Comparison, Report
from tests.experiments import shop
from tests.experiments.rows import assert_finite, assert_sound

HILLSTROM = hillstrom._DATA
NONE, MENS, WOMENS = "No E-Mail", "Mens E-Mail", "Womens E-Mail"
EXPECTED = Path(__file__).parents[3] / "shared" / "data" / "hillstrom" / "expected.json"


def asked(*metrics: str, variant: str = "variant", control: str = "none", **options: Any) -> Question:
    return Question(variant, control, [FileMetric.parse(text) for text in metrics], **options)


def sound(path: Path, question: Question) -> Report:
    found = analyse(path, question)
    assert_sound(report.encode(found))
    assert_finite(msgspec.to_builtins(found))
    return found


@cache
def campaign() -> Report:
    metrics = "visit=conversion:visit", "conversion=conversion:conversion", "spend=mean:spend"
    return sound(HILLSTROM, asked(*metrics, variant="segment", control=NONE, segments=["mens", "womens"]))


def comparison(found: Report, metric: str, variant: str, segment: str | None = None) -> Comparison:
    (part,) = (m for m in found.metrics if m.metric == metric)
    return next(c for c in part.comparisons if (c.variant, c.segment) == (variant, segment))


def means(found: Report, metric: str, segment: str | None = None) -> dict[str, float | None]:
    (part,) = (m for m in found.metrics if m.metric == metric)
    return {arm.variant: arm.mean for arm in part.arms if arm.segment == segment}


def test_hillstrom_equals_the_published_figures() -> None:
    found = campaign()
    visits = {NONE: 0.106167, MENS: 0.182757, WOMENS: 0.151400}
    assert means(found, "visit") == pytest.approx(visits, abs=5e-7)
    assert means(found, "spend") == pytest.approx({NONE: 0.65279, MENS: 1.42262, WOMENS: 1.07720}, abs=5e-6)
    assert found.srm.observed == {NONE: 21306, MENS: 21307, WOMENS: 21387}
    assert found.srm.p_value == pytest.approx(0.9037, abs=5e-5)
    visit, spend = comparison(found, "visit", MENS), comparison(found, "spend", MENS)
    assert visit.absolute is not None
    assert visit.absolute.estimate == pytest.approx(0.07659, abs=5e-6)
    assert visit.statistic is not None
    assert (visit.statistic.name, visit.statistic.value) == ("pooled_z", pytest.approx(22.486, abs=5e-4))
    assert spend.statistic is not None
    assert (spend.statistic.name, spend.statistic.value) == ("welch_t", pytest.approx(5.3001, abs=5e-5))


@pytest.mark.skipif(not EXPECTED.is_file(), reason="the shared reference of the campaign is not here")
def test_hillstrom_equals_the_shared_reference() -> None:
    computed = json.loads(EXPECTED.read_text(encoding="utf-8"))["computed"]
    found = campaign()
    assert found.srm.p_value == pytest.approx(computed["srm_equal"]["p"], rel=1e-9)
    for name, variant in (("mens", MENS), ("womens", WOMENS)):
        for metric in ("visit", "conversion"):
            oracle = computed[f"{name}_vs_none.{metric}"]
            c = comparison(found, metric, variant)
            assert c.absolute is not None
            assert c.statistic is not None
            assert (c.absolute.estimate, c.statistic.value, c.p_value, c.se) == pytest.approx(
                (oracle["diff"], oracle["z_pooled"], oracle["p_pooled_two_sided"], oracle["se_unpooled"]), rel=1e-9
            )
        oracle = computed[f"{name}_vs_none.spend"]
        c = comparison(found, "spend", variant)
        assert c.absolute is not None
        assert c.statistic is not None
        limits = c.absolute.estimate, c.absolute.lower, c.absolute.upper
        assert limits == pytest.approx((oracle["diff"], *oracle["ci95"]), rel=1e-9)
        assert (c.statistic.value, c.statistic.df, c.p_value) == pytest.approx(
            (oracle["t"], oracle["df"], oracle["p_two_sided"]), rel=1e-9
        )


FIGURES = [name for name in Comparison.__struct_fields__ if name not in ("variant", "control", "segment")]


def figures(c: Comparison) -> dict[str, Any]:
    return {name: getattr(c, name) for name in FIGURES}


def test_a_file_gives_the_bits_that_the_service_gives_after_ingest(tmp_path: Path) -> None:
    people = shop.customers(500)
    store = shop.open_shop(tmp_path / "store")
    shop.send(store, people)
    service = reports.make(store, shop.KEY, now=shop.NOW).report
    store.close()
    metrics = "spend=mean:spend", "bought=conversion:bought", "basket=ratio:spend/visits"
    found = sound(shop.write_csv(tmp_path / "shop.csv", people), asked(*metrics, segments=["segment"]))
    assert found.method.stratified
    for metric, segment in product(("spend", "bought", "basket"), (None, "new", "old")):
        theirs = comparison(service, metric, "letter", segment)
        ours = comparison(found, metric, "letter", None if segment is None else f"segment={segment}")
        assert figures(ours) == figures(theirs), (metric, segment)


def test_parquet_gives_the_report_of_the_csv(tmp_path: Path) -> None:
    path = shop.write_csv(tmp_path / "shop.csv", shop.customers(200))
    other = tmp_path / "shop.parquet"
    pq.write_table(pyarrow.csv.read_csv(path), other)
    question = asked("spend=mean:spend", "bought=conversion:bought", segments=["segment"], covariates=["visits"])
    one, two = sound(path, question), sound(other, question)
    assert (one.metrics, one.srm, one.decision) == (two.metrics, two.srm, two.decision)


def rows_of(path: Path, table: dict[str, Any] | pa.Table) -> Path:
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), path)
    return path


@pytest.mark.parametrize("options", [{}, {"covariates": ["age"]}, {"segments": ["place"]}], ids=str)
def test_rows_of_one_unit_are_folded_into_one_user(tmp_path: Path, options: Any) -> None:
    """Sums of money, any success, the covariate and the segment of the user; crossed users counted, and left out."""
    r = np.random.default_rng(3)
    once, many = [], []
    for number in range(80):
        user = {
            "id": number,
            "variant": "t" if number % 2 else "none",
            "age": number * 7 % 50,
            "place": "ab"[number % 3 % 2],
        }
        visits = [{"spend": float(r.integers(100)) / 4, "won": int(r.random() < 0.4)} for _ in range(r.integers(1, 4))]
        many += [user | visit for visit in visits]
        once.append(user | {"spend": sum(v["spend"] for v in visits), "won": max(v["won"] for v in visits)})
    crossed = {"id": 99, "age": 1, "place": "a", "spend": 50.0, "won": 1}
    many += [crossed | {"variant": "t"}, crossed | {"variant": "none"}]
    found, alone = (
        sound(
            rows_of(tmp_path / "f.parquet", pa.Table.from_pylist(part)),
            asked("spend=mean:spend", "won=conversion:won", unit="id", **options),
        )
        for part in (many, once)
    )
    assert found.metrics == alone.metrics
    assert comparison(found, "won", "t").problem is None
    assert [(f.code, f.count, f.of) for f in found.health] == [("crossovers", 1, 81)]


def test_every_segment_column_equals_a_file_of_its_rows_alone(tmp_path: Path) -> None:
    r = np.random.default_rng(1)
    n = 400
    columns: dict[str, Any] = {
        "variant": r.choice(["none", "t"], n),
        "y": r.normal(10, 2, n).round(2),
        "city": r.choice(["上海", "北京"], n),
        "vip": r.choice([True, False], n),
    }
    found = sound(rows_of(tmp_path / "all.parquet", columns), asked("y=mean:y", segments=["city", "vip"]))
    assert list(found.segments) == ["city=上海", "city=北京", "vip=false", "vip=true"]
    for column, value, segment in (("city", "上海", "city=上海"), ("vip", True, "vip=true")):
        chosen = columns[column] == value
        part = rows_of(tmp_path / "part.parquet", {name: values[chosen] for name, values in columns.items()})
        alone = comparison(sound(part, asked("y=mean:y")), "y", "t")
        inside = comparison(found, "y", "t", segment)
        assert (inside.absolute, inside.p_value) == (alone.absolute, alone.p_value)


def test_an_empty_segment_is_a_segment(tmp_path: Path) -> None:
    path = rows_of(
        tmp_path / "f.parquet", {"variant": ["none", "t"] * 6, "y": list(range(12)), "s": [None, None, "a", "a"] * 3}
    )
    assert list(sound(path, asked("y=mean:y", segments=["s"])).segments) == ["s=", "s=a"]


def test_weights_are_the_expected_split(tmp_path: Path) -> None:
    path = rows_of(tmp_path / "f.parquet", {"variant": ["none"] * 60 + ["t"] * 20, "y": list(range(80))})
    equal = sound(path, asked("y=mean:y"))
    given = sound(path, asked("y=mean:y", weights={"none": 3, "t": 1}))
    assert (equal.srm.problem, equal.decision.verdict) == ("sample_ratio_mismatch", "invalid")
    assert (given.srm.p_value, given.srm.expected) == (1.0, {"none": 60.0, "t": 20.0})


def test_covariates_equal_statsmodels_interacted_regression(tmp_path: Path) -> None:
    r = np.random.default_rng(2)
    n = 300
    treated = r.random(n) < 0.5
    x = r.normal(5, 2, (n, 2)).round(3)
    y = (x @ [1.0, -0.5] + treated * 0.4 + r.normal(0, 1, n)).round(3)
    variant = np.where(treated, "t", "none")
    path = rows_of(tmp_path / "f.parquet", {"variant": variant, "y": y, "x0": x[:, 0], "x1": x[:, 1]})
    c = comparison(sound(path, asked("y=mean:y", covariates=["x0", "x1"])), "y", "t")
    centred = x - x.mean(axis=0)
    fit = sm.OLS(y, np.column_stack([np.ones(n), treated, centred, centred * treated[:, None]])).fit()
    assert c.absolute is not None
    assert c.absolute.estimate == pytest.approx(fit.params[1], rel=1e-9)


def test_roles_and_directions_are_those_asked_for(tmp_path: Path) -> None:
    path = rows_of(
        tmp_path / "f.parquet", {"variant": ["none", "t"] * 50, "y": list(range(100)), "z": [0, 0, 1, 1] * 25}
    )
    question = asked("a=mean:y", "b=mean:z", "c=conversion:z", guardrails={"b": 0.5}, lower_is_better=["c"])
    found = [(m.role, m.direction, m.kind) for m in sound(path, question).metrics]
    assert found == [("primary", "up", "mean"), ("guardrail", "up", "mean"), ("secondary", "down", "conversion")]
    test = comparison(sound(path, question), "b", "t").noninferiority
    assert test is not None
    assert test.margin == 0.5


def test_a_sequence_is_tuned_to_the_file_unless_told(tmp_path: Path) -> None:
    path = rows_of(tmp_path / "f.parquet", {"variant": ["none", "t"] * 50, "y": list(range(100))})
    default = sound(path, asked("y=mean:y", method="sequential"))
    told = sound(path, asked("y=mean:y", method="sequential", planned_users=100))
    other = sound(path, asked("y=mean:y", method="sequential", planned_users=1000))
    assert default.metrics == told.metrics
    assert comparison(default, "y", "t").absolute != comparison(other, "y", "t").absolute


def test_whole_numbers_and_true_or_false_are_variants_too(tmp_path: Path) -> None:
    for values, control, other in (([0, 1], "0", "1"), ([True, False], "false", "true")):
        path = rows_of(tmp_path / "f.parquet", {"variant": values * 20, "y": list(range(40))})
        assert sorted(arm.variant for arm in sound(path, asked("y=mean:y", control=control)).arms) == [control, other]


def test_decimal_and_small_whole_columns_equal_floats(tmp_path: Path) -> None:
    y = np.random.default_rng(1).integers(0, 100, 80)
    typed = {
        "float64": pa.array(y.astype(float)),
        "uint8": pa.array(y.astype("uint8")),
        "int64": pa.array(y),
        "decimal": pa.array(y).cast(pa.decimal128(30, 4)),
        "float32": pa.array(y.astype("float32")),
    }
    found = [
        comparison(
            sound(
                rows_of(tmp_path / f"{name}.parquet", {"variant": ["none", "t"] * 40, "y": column}), asked("y=mean:y")
            ),
            "y",
            "t",
        )
        for name, column in typed.items()
    ]
    assert all(each == found[0] for each in found)


GOOD: dict[str, Any] = {
    "id": list(range(8)),
    "variant": ["none", "t"] * 4,
    "y": [1.0, 2.0, 3.0, 5.0] * 2,
    "won": [0, 1] * 4,
    "name": list("abcdefgh"),
}
Y = "y=mean:y"


@pytest.mark.parametrize(
    ("columns", "question", "field", "problem", "value"),
    [
        ({}, asked(Y, variant="arm"), "variant", "unknown_column", "arm"),
        ({}, asked("y=mean:z"), "metric", "unknown_column", "z"),
        ({}, asked("y=ratio:y/z"), "metric", "unknown_column", "z"),
        ({}, asked(Y, unit="user"), "unit", "unknown_column", "user"),
        ({}, asked(Y, covariates=["z"]), "covariate", "unknown_column", "z"),
        ({}, asked(Y, segments=["z"]), "segment", "unknown_column", "z"),
        ({}, asked(Y, guardrails={"z": 1.0}), "guardrail", "unknown_metric", "z"),
        ({}, asked(Y, guardrails={"y": 1.0}), "guardrail", "primary", "y"),
        ({}, asked(Y, lower_is_better=["z"]), "lower-is-better", "unknown_metric", "z"),
        ({}, asked("y=mean:name"), "name", "not_a_number", "string"),
        ({}, asked(Y, covariates=["name"]), "name", "not_a_number", "string"),
        ({}, asked("y=conversion:y"), "y", "not_0_or_1", "6 rows"),
        ({}, asked(Y, control="ctrl"), "control", "unknown_variant", "ctrl"),
        ({}, asked(Y, weights={"none": 1.0}), "weights", "bad_weights", {"none": 1.0}),
        ({}, asked(Y, weights={"none": -1.0, "t": 2.0}), "weights", "bad_weights", {"none": -1.0, "t": 2.0}),
        ({}, asked(Y, "y=mean:won"), "metric", "not_unique", "y"),
        ({"variant": ["none"] * 8}, asked(Y), "control", "unknown_variant", "none"),
        ({"variant": ["none", None] * 4}, asked(Y), "variant", "empty", "4 rows"),
        ({"id": [1, 2, None, None, 3, 4, 5, 6]}, asked(Y, unit="id"), "id", "empty", "2 rows"),
        ({"y": [1.0, None] * 4}, asked(Y), "y", "empty", "4 rows"),
        ({"won": [0, None] * 4}, asked("y=conversion:won"), "won", "empty", "4 rows"),
        ({"y": [1.0, float("nan")] * 4}, asked(Y), "y", "not_finite", "4 rows"),
        ({"y": [1.0, float("-inf")] * 4}, asked(Y), "y", "not_finite", "4 rows"),
        ({"y": [1.0, 1e13] * 4}, asked(Y), "y", "not_finite", "4 rows"),
        ({"y": [1, 10**15] * 4}, asked(Y), "y", "not_finite", "4 rows"),
        ({"y": [1.0, 1e-8] * 4}, asked(Y), "y", "too_fine", "4 rows"),
        ({"name": [str(i) for i in range(1001)]}, asked(Y, segments=["name"]), "segment", "too_many", ["name"]),
    ],
)
def test_what_does_not_fit_is_named_with_its_value_and_a_remedy(
    tmp_path: Path, columns: dict[str, Any], question: Question, field: str, problem: str, value: object
) -> None:
    rows = max(len(column) for column in columns.values()) if columns else 8
    table = {name: (list(values) * (rows // 8 + 1))[:rows] for name, values in (GOOD | columns).items()}
    with pytest.raises(InvalidDocument) as refused:
        analyse(rows_of(tmp_path / "f.parquet", table), question)
    (found,) = refused.value.problems
    assert (found.field, found.problem, found.value) == (field, problem, value)
    assert found.remedy


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    question = asked("y=mean:nothing", covariates=["name"], segments=["nowhere"])
    with pytest.raises(InvalidDocument) as refused:
        analyse(rows_of(tmp_path / "f.parquet", GOOD), question)
    assert [p.field for p in refused.value.problems] == ["metric", "segment", "name"]


@pytest.mark.parametrize("name", ["f.parquet", "f.csv", "f.csv.gz"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(InvalidDocument) as missing:
        analyse(path, asked(Y))
    assert missing.value.problems[0].problem == "not_found"
    path.write_bytes(b"\x00\xff\xfe not a table" * 9)
    with pytest.raises(InvalidDocument):
        analyse(path, asked(Y))


@pytest.mark.parametrize(
    "text",
    [
        "y",
        "y=",
        "y=mean",
        "y=mean:",
        "y=median:x",
        "=mean:x",
        "y=mean:a/b",
        "y=conversion:a/b",
        "y=ratio:a",
        "y=ratio:a/",
    ],
)
def test_a_metric_that_is_not_written_as_told_is_refused(text: str) -> None:
    with pytest.raises(InvalidDocument) as refused:
        FileMetric.parse(text)
    assert refused.value.problems[0].value == text


def test_thousands_of_rows_in_any_order_give_the_same_bits(tmp_path: Path) -> None:
    r = np.random.default_rng(5)
    n = 5000
    columns = {
        "variant": r.choice(["none", "t"], n),
        "y": r.lognormal(3, 2, n).round(2),
        "x": r.normal(size=n).round(4),
    }
    mixed = {name: values[r.permutation(n)] for name, values in columns.items()}
    order = r.permutation(n)
    mixed = {name: values[order] for name, values in columns.items()}
    question = asked(Y, covariates=["x"])
    one, two = (sound(rows_of(tmp_path / "f.parquet", table), question) for table in (columns, mixed))
    assert one.metrics == two.metrics


def test_the_question_and_the_report_do_not_depend_on_the_order_of_segment_columns(tmp_path: Path) -> None:
    path = shop.write_csv(tmp_path / "f.csv", shop.customers(200))
    question = asked("spend=mean:spend", segments=["segment", "visits"])
    one, two = sound(path, question), sound(path, replace(question, segments=["visits", "segment"]))
    assert one.metrics[0].comparisons == two.metrics[0].comparisons
