import pytest
import scipy.stats

from tests.stats.study_contrasts import ALPHA, DESIGNS, familywise, lift_misses, share_alarms

pytestmark = pytest.mark.study
SEED = 20240502


@pytest.mark.parametrize("design", [name for name in DESIGNS if name != "8 users"])
def test_any_false_claim_has_the_nominal_rate(design: str) -> None:
    replications = 800
    low, high = scipy.stats.binom.interval(0.999, replications, ALPHA)
    for share in familywise(design, replications, SEED).values():
        assert low <= share * replications <= high


def test_fieller_misses_equally_on_both_sides_and_delta_does_not() -> None:
    replications = 10_000
    low, high = (x / replications for x in scipy.stats.binom.interval(0.999, replications, ALPHA / 2))
    misses = lift_misses(0.1, replications, SEED)
    assert all(low <= share <= high for share in misses["fieller"])
    assert max(misses["delta"]) > 3 * min(misses["delta"])


@pytest.mark.parametrize("concentration", [100, 10_000])
def test_share_check_looked_at_a_thousand_times_stays_below_alpha_and_sees_a_mismatch(concentration: float) -> None:
    assert share_alarms(0.5, concentration, 500, SEED)[0] <= ALPHA
    alarms, users = share_alarms(0.48, concentration, 100, SEED)
    assert alarms > 0.99
    assert users < 20_000
