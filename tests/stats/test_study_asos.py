from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from tests.stats.study_asos import METRICS, Reading, Series, counts, judge, read

FILE = Path(__file__).parents[3] / "shared" / "data" / "asos_digital_experiments" / "asos_part_dev.csv.gz"
needs_data = pytest.mark.skipif(not FILE.exists(), reason="the ASOS data (asos_part_dev.csv.gz) are not here")
# Per metric: significant at the last look and at any look, by the t-test, the sequence, the sequence tuned to half.
CLAIMS = {
    "1": (15, 26, 10, 13, 10, 13),
    "2": (18, 35, 11, 21, 11, 21),
    "3": (15, 32, 9, 13, 9, 13),
    "4": (13, 28, 7, 14, 6, 15),
}
# t at the last look against the sequence at any look: both, only the sequence, only t, neither.
CELLS = {"1": (12, 1, 3, 29), "2": (13, 8, 5, 19), "3": (10, 3, 5, 27), "4": (10, 4, 3, 28)}


@pytest.fixture(scope="module")
def looks() -> dict[str, list[Series]]:
    return read(FILE)


@pytest.fixture(scope="module")
def readings(looks: dict[str, list[Series]]) -> dict[str, list[Reading]]:
    return {metric: [judge(series) for series in found] for metric, found in looks.items()}


@needs_data
@pytest.mark.parametrize("metric", METRICS)
def test_claims_of_each_rule(readings: dict[str, list[Reading]], metric: str) -> None:
    found = counts(readings[metric])
    assert found["series"] == 45
    assert tuple(found[name] for name in Reading.__dataclass_fields__) == CLAIMS[metric]
    assert tuple(found[name] for name in ("both", "only_sequence", "only_t", "neither")) == CELLS[metric]


@needs_data
def test_daily_t_tests_claim_far_more_than_the_sequence(readings: dict[str, list[Reading]]) -> None:
    every = [reading for metric in METRICS for reading in readings[metric]]
    t, sequence = sum(r.t_ever for r in every), sum(r.sequence_ever for r in every)
    assert t > 1.9 * sequence
    assert all(r.t_at_end for r in every if r.sequence_at_end)


@needs_data
@pytest.mark.parametrize("metric", METRICS)
def test_claims_equal_scipy_and_the_normal_mixture_written_out(
    looks: dict[str, list[Series]], readings: dict[str, list[Reading]], metric: str
) -> None:
    for series, reading in zip(looks[metric], readings[metric], strict=True):
        n = np.array([[arm.n for arm in look] for look in series], dtype=float)
        mean = np.array([[arm.mean[0] for arm in look] for look in series])
        variance = np.array([[arm.covariance[0, 0] for arm in look] for look in series])
        t = scipy.stats.ttest_ind_from_stats(
            *(mean[:, 1], np.sqrt(variance[:, 1]), n[:, 1], mean[:, 0], np.sqrt(variance[:, 0]), n[:, 0]),
            equal_var=False,
        )
        assert (reading.t_at_end, reading.t_ever) == (t.pvalue[-1] < 0.05, (t.pvalue < 0.05).any())
        # Effects N(0, tau^2) against none, tau^2 = 8.2121 se^2 at the end: significant beyond a Bayes factor of 20.
        prior = 8.2121 * n.sum(axis=1) / n[-1].sum()
        factor = np.exp(t.statistic**2 / 2 * prior / (1 + prior)) / np.sqrt(1 + prior)
        assert (reading.sequence_at_end, reading.sequence_ever) == (factor[-1] > 20, (factor > 20).any())
