"""What a programme came to: counted from the record, the luck of the winners taken off, against a holdout."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from msgspec import structs

from experiments import ingest, registry
from experiments.bulk import buckets
from experiments.codes import Verdict
from experiments.documents import Decision, Kind, Status
from experiments.errors import Conflict, InvalidDocument
from experiments.programme import contribution, lifts, summaries
from experiments.programme import totals as programme
from experiments.programme.attention import Attention, Group, group
from experiments.programme.contribution import Question
from experiments.programme.lifts import Lift
from experiments.programme.totals import Agreement, Missing
from experiments.settings import Settings
from experiments.store import Store
from tests.web import made, many

ALL = (date(2026, 1, 1), date(2026, 11, 23))
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store.open(Settings.in_folder(tmp_path_factory.mktemp("store")), migrate=True)
    many.fill(store, 60)
    yield store
    store.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(Settings.in_folder(tmp_path), migrate=True)
    yield store
    store.close()


def test_it_counts_what_the_audit_tells(template: Store) -> None:
    found = programme.of_period(template, *ALL, now=made.NOW)
    shapes = [many.SHAPES[n % len(many.SHAPES)] for n in range(60)]
    assert found.started == sum(verdict is not None for _, verdict in shapes)
    assert found.decided == sum(status in (Status.decided, Status.archived) for status, _ in shapes)
    assert found.ended == found.decided + sum(status is Status.stopped for status, _ in shapes)
    assert found.median_days == pytest.approx(12)
    assert found.win_rate is not None
    assert found.win_rate.estimate == found.shipped / found.decided
    assert found.win_rate.lower < found.win_rate.estimate < found.win_rate.upper
    assert found.total is not None
    assert found.total.estimate == pytest.approx(sum(line.value.estimate for line in found.experiments if line.value))


def test_another_period_holds_other_experiments(template: Store) -> None:
    whole = programme.of_period(template, *ALL, now=made.NOW)
    halves = [(ALL[0], date(2026, 8, 20)), (date(2026, 8, 20), ALL[1])]
    parts = [programme.of_period(template, *half, now=made.NOW) for half in halves]
    assert sum(part.decided for part in parts) == whole.decided
    assert all(part.decided for part in parts)
    nothing = programme.of_period(template, date(2020, 1, 1), date(2020, 2, 1), now=made.NOW)
    assert (nothing.total, nothing.total_missing, nothing.win_rate) == (None, Missing.nothing_shipped, None)


def test_the_shrunken_sum_is_that_of_its_lines(template: Store) -> None:
    found = programme.of_period(template, *ALL, now=made.NOW)
    left = [line.shrunken_value.estimate for line in found.experiments if line.shrunken_value]
    assert found.shrunken is not None
    assert found.total is not None
    assert len(left) == found.valued
    assert found.shrunken.estimate == pytest.approx(sum(left))
    assert found.shrunken.estimate < found.total.estimate
    assert found.shrunken.lower < found.shrunken.estimate < found.shrunken.upper


def test_picked_winners_are_overstated_and_the_shrunken_sum_is_not() -> None:
    """250 programmes of 40 experiments; those with z > 1.96 are rolled out."""
    random = np.random.default_rng(3)
    naive, left, covered = [], [], []
    for _ in range(250):
        truth = random.normal(0.01, 0.02, 40)
        seen = truth + random.normal(0, 0.02, 40)
        won = seen > 1.96 * 0.02
        if not won.any():
            continue
        pool = lifts.pool(
            [Lift(f"e{i}", "b", "m", x, 0.02, 1.0, 0.0, 0.02) for i, x in enumerate(seen)], (won * 1.0).tolist()
        )
        assert pool.combined is not None
        total = float(truth[won].sum())
        naive.append(float(seen[won].sum()) - total)
        left.append(pool.combined.estimate - total)
        covered.append(pool.combined.lower <= total <= pool.combined.upper)
    error = float(np.std(left)) / len(left) ** 0.5
    assert np.mean(naive) > 20 * error
    assert abs(np.mean(left)) < 5 * error
    assert abs(np.mean(left)) < np.mean(naive) / 10
    assert np.mean(covered) > 0.92


def test_variants_of_one_experiment_share_its_control() -> None:
    """Two arms, one control: the covariance of the lifts is the control's variance."""
    pair = [Lift("e", v, "m", 0.1, 0.05**0.5, 1.0, 0.02**0.5, 0.03**0.5) for v in ("b", "c")]
    found = lifts._covariance([*pair, Lift("f", "b", "m", 0.0, 0.1, 1.0, 0.1, 0.1)])
    assert found == pytest.approx(np.array([[0.05, 0.02, 0], [0.02, 0.05, 0], [0, 0, 0.01]]))


def test_too_few_experiments_have_no_shrunken_sum(store: Store) -> None:
    many.fill(store, 3)
    found = programme.of_period(store, *ALL, now=made.NOW)
    assert found.shrunken is None
    assert found.usual is None
    if found.shipped:
        assert found.shrunken_missing is Missing.too_few_experiments


def test_a_report_of_another_version_is_no_report(template: Store) -> None:
    with template.read() as session:
        known = summaries.of_all(session)
        assert summaries.gist(session, "nothing") is None
    gists = [summary.gist for summary in known if summary.gist is not None]
    assert len(gists) == 54
    assert all(not metric.timeline for gist in gists for metric in gist.report.metrics)


def test_periods_are_read_and_refused() -> None:
    zone = ZoneInfo("Asia/Shanghai")
    assert programme.period("2026-01-01", "2026-01-31", now=made.NOW, zone=zone) == (
        date(2026, 1, 1),
        date(2026, 2, 1),
    )
    first, after = programme.period(None, None, now=made.NOW, zone=zone)
    assert (after - first, after) == (90 * DAY, date(2026, 11, 23))
    for given in (("x", None), ("2026-02-02", "2026-02-01"), (None, "0001-01-01"), ("9999-12-31", "9999-12-31")):
        with pytest.raises(InvalidDocument):
            programme.period(*given, now=made.NOW, zone=zone)


def test_what_waits_for_a_person(template: Store) -> None:
    with template.read() as session:
        known = {summary.experiment.key: summary for summary in summaries.of_all(session)}

    def of(number: int, **fields: timedelta) -> tuple[Group, list[Attention]]:
        return group(known[many.key(number)], made.NOW + fields.get("later", timedelta()))

    assert of(0) == (Group.running, [])
    assert of(1)[0] is Group.ready
    assert of(2) == (Group.decided, [])
    assert of(4) == (Group.attention, [Attention.not_trusted])
    assert of(6)[0] is Group.ready
    assert of(7) == (Group.draft, [])
    assert of(9) == (Group.archived, [])
    assert of(10) == (Group.attention, [Attention.guardrail_harmed])
    assert of(0, later=4 * DAY) == (Group.attention, [Attention.numbers_old])
    assert of(2, later=400 * DAY) == (Group.decided, [])


def test_an_experiment_beyond_its_plan_without_an_answer_waits(template: Store) -> None:
    with template.read() as session:
        known = {summary.experiment.key: summary for summary in summaries.of_all(session)}
    summary = known[many.key(0)]
    assert summary.gist is not None
    primary = structs.replace(summary.gist.report.primary(), matured=80_000)
    report = structs.replace(summary.gist.report, metrics=[primary])
    assert report.decision.verdict is Verdict.keep_running
    changed = summaries.Summary(summary.experiment, summaries.Gist("x", made.NOW, report), summary.dates)
    assert group(changed, made.NOW)[1] == [Attention.beyond_plan]


HOLDOUT = {"key": "away", "name": "Held out", "share": 0.2}
VISIT = made.PRIMARY | {"window_days": 14}
START = made.NOW - 40 * DAY


def _held_out(store: Store, *, users: int = 4_000, first: int = 0, unlucky: bool = False) -> None:
    """Users known for long; of those held out a fifth visits in the period, of the others three tenths."""
    with store.write() as session:
        if not first:
            for kind, body in ((Kind.holdout, HOLDOUT), (Kind.metric, VISIT), (Kind.metric, many.SPEND)):
                registry.create(session, kind, body, actor="x", now=made.NOW)
        ids = [f"u{i}" for i in range(first, first + users)]
        held = buckets("away", np.array(ids)) < 2_000
        items: list[ingest.AnyItem] = []
        turn = {True: 0, False: 0}
        for who, away in zip(ids, held.tolist(), strict=True):
            if unlucky and away and turn[True] % 2:
                turn[True] += 1
                continue  # half of those held out were never known
            items.append(ingest.Event(message_id=f"b-{who}", user_id=who, timestamp=START - 20 * DAY, event="open"))
            turn[away] += 1
            if turn[away] % 10 < (2 if away else 3):
                items.append(ingest.Event(message_id=f"v-{who}", user_id=who, timestamp=START + DAY, event="visit"))
        receipt = ingest.store(session, store.catalog(session), list(enumerate(items)), now=made.NOW - DAY)
        assert not receipt.rejected


def _question(**fields: Any) -> Question:
    start = START.date()
    return replace(Question("away", "visit", start, start + 30 * DAY), **fields)


def test_the_holdout_against_the_rest(store: Store) -> None:
    _held_out(store)
    # Whoever comes in the period is the tactics' doing, or not: he does not count.
    with store.write() as session:
        late = [
            ingest.Event(message_id=f"n{i}", user_id=f"new{i}", timestamp=START + 2 * DAY, event="visit")
            for i in range(500)
        ]
        ingest.store(session, store.catalog(session), list(enumerate(late)), now=made.NOW - DAY)
    found = contribution.make(store, _question(), now=made.NOW)
    ids = np.array([f"u{i}" for i in range(4_000)])
    held = int((buckets("away", ids) < 2_000).sum())
    assert (found.held, found.rest, found.days) == (held, 4_000 - held, 30)
    assert found.per_user is not None
    assert found.total is not None
    assert found.per_user.estimate == pytest.approx(0.1, abs=0.002)
    assert found.per_user.lower < 0.1 < found.per_user.upper
    assert found.total.estimate == pytest.approx(found.rest * found.per_user.estimate)
    assert found.trusted
    with store.read() as session:
        assert contribution.latest(session, _question()) == found
    assert contribution.make(store, _question(), now=made.NOW, sync=False) == found
    whole = programme.of_period(store, *ALL, now=made.NOW, question=_question())
    assert whole.holdout == found
    assert whole.reconciled is not None
    assert whole.reconciled.agreement is Agreement.not_comparable


def test_a_holdout_that_lost_users_is_not_trusted(store: Store) -> None:
    _held_out(store, unlucky=True)
    found = contribution.make(store, _question(), now=made.NOW)
    assert not found.trusted
    assert found.total is None


def test_a_holdout_cannot_tell_everything(store: Store) -> None:
    _held_out(store, users=100)
    with store.write() as session:
        ratio = {
            "key": "ratio",
            "name": "Ratio",
            "kind": "ratio",
            "window_days": 7,
            "numerator": [{"event": "a"}],
            "denominator": [{"event": "b"}],
        }
        registry.create(session, Kind.metric, ratio, actor="x", now=made.NOW)
    with pytest.raises(InvalidDocument, match="total"):
        contribution.make(store, _question(metric="ratio"), now=made.NOW)
    with pytest.raises(InvalidDocument, match="whole day"):
        contribution.make(store, _question(start=made.NOW.date() + DAY, end=made.NOW.date() + 9 * DAY), now=made.NOW)
    with pytest.raises(Conflict) as refused:
        contribution.make(store, _question(start=date(2020, 1, 1), end=date(2020, 2, 1)), now=made.NOW)
    assert refused.value.code == "nobody_known"


@pytest.mark.parametrize(("factor", "expected"), [(1.0, Agreement.agrees), (20.0, Agreement.below)])
def test_the_holdout_is_reconciled_with_the_single_wins(store: Store, factor: float, expected: Agreement) -> None:
    """One win of 10 % of 20 a user for 3,200 users a month, in force all month, against what the holdout tells."""
    _held_out(store)
    users = round(3_200 * factor)
    with store.write() as session:
        for kind, bodies in ((Kind.metric, (made.GUARDRAIL,)), (Kind.segment, made.SEGMENTS)):
            for body in bodies:
                registry.create(session, kind, body, actor="x", now=made.NOW)
        held = buckets("away", np.array([f"u{who}" for who in range(4_000)])) < 2_000
        bought: list[ingest.AnyItem] = [
            ingest.Event(
                message_id=f"p{who}",
                user_id=f"u{who}",
                timestamp=START + DAY,
                event="purchase",
                value=20.0 + 2 * (not away) + who % 5 - 2,
            )
            for who, away in enumerate(held.tolist())
        ]
        ingest.store(session, store.catalog(session), list(enumerate(bought)), now=made.NOW - DAY)
        value = {"metric": "spend", "monthly_users": users}
        body = many.document(0, holdouts=["away"], value=value, strata=[])
        began = START - 5 * DAY
        registry.create(session, Kind.experiment, body, actor="x", now=began)
        registry.move(session, many.key(0), Status.running, actor="x", now=began)
        registry.move(session, many.key(0), Status.stopped, actor="x", now=began)
    made.save(store, many.made_report(0, Verdict.ship, 0.1, at=START), "win")
    with store.write() as session:
        chosen = Decision(variant="ten", reason="It wins.", report="win")
        registry.move(session, many.key(0), Status.decided, actor="x", now=began, decision=chosen)
    question = _question(metric="spend")
    contribution.make(store, question, now=made.NOW)
    found = programme.of_period(store, question.start, question.end, now=made.NOW, question=question).reconciled
    assert found is not None
    assert found.singles is not None
    assert found.singles.estimate == pytest.approx(users * 0.1 * 20 * 30 / (365.25 / 12))
    assert (found.counted, found.left_out) == (1, 0)
    assert found.agreement is expected
