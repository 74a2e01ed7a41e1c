import subprocess
import sys

import numpy as np
import pytest

from experiments.commands.uplift import LEARNERS as OFFERED
from experiments.uplift import learners, question
from experiments.uplift.frame import from_table
from experiments.uplift.learners import LEARNERS, MissingPackage, Rows
from experiments.uplift_wording import LEARNER_NAMES
from tests.experiments.uplift import made

HEAVY = ("causalml", "sklearn", "lightgbm", "xgboost", "shap", "matplotlib")


def rows(outcome: str = "revenue", arms: int = 3) -> Rows:
    frame = from_table(made.campaign(4000, arms=arms), made.question(outcome=outcome))
    return Rows(frame.matrix()[0], frame.arm, frame.outcome, frame.propensity)


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_finds_the_effect_and_repeats_itself(name: str) -> None:
    """The young gain from the gift and lose by the call, the others the other way round."""
    given = rows("bought" if name == "forest" else "revenue")
    fitted = LEARNERS[name](given, 1)
    effects = fitted.effects(given.matrix, given.propensity)
    assert effects.shape == (4000, 2)
    young = given.matrix[:, 0] < 40
    call, gift = (effects[young] - effects[~young & ~np.isnan(given.matrix[:, 0])].mean(axis=0)).mean(axis=0)
    assert call < 0 < gift
    again = LEARNERS[name](given, 1).effects(given.matrix, given.propensity)
    assert np.array_equal(effects, again)


@pytest.mark.parametrize("name", LEARNERS)
def test_learners_take_two_variants(name: str) -> None:
    given = rows("bought", arms=2)
    effects = LEARNERS[name](given, 1).effects(given.matrix, given.propensity)
    assert effects.shape == (4000, 1)
    assert np.isfinite(effects).all()


def test_the_t_learner_is_that_of_causalml() -> None:
    from causalml.inference.meta import BaseTRegressor

    given = rows()
    theirs = BaseTRegressor(learners._trees(given, 1), control_name=0)
    theirs.fit(X=given.matrix, treatment=given.arm, y=given.outcome)
    ours = LEARNERS["t"](given, 1)
    assert ours.effects(given.matrix, given.propensity) == pytest.approx(theirs.predict(X=given.matrix))


def test_the_forest_is_never_given_money() -> None:
    with pytest.raises(ValueError, match="0/1"):
        LEARNERS["forest"](rows(), 1)


def test_the_propensity_is_that_among_the_variant_and_the_control(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[int, np.ndarray]] = []
    from causalml.inference.meta import BaseXRegressor

    fit = BaseXRegressor.fit

    def watched(self: object, **given: object) -> object:
        seen.append(given["p"])  # type: ignore[arg-type]
        return fit(self, **given)

    monkeypatch.setattr(BaseXRegressor, "fit", watched)
    given = rows()
    LEARNERS["x"](Rows(given.matrix, given.arm, given.outcome, np.tile([0.5, 0.3, 0.2], (4000, 1))), 1)
    assert [float(seen[0][k][0]) for k in (1, 2)] == pytest.approx([0.3 / 0.8, 0.2 / 0.7])


def test_the_same_learners_are_offered_everywhere() -> None:
    assert tuple(LEARNERS) == OFFERED == tuple(LEARNER_NAMES)
    assert set(question.DEFAULT) <= set(LEARNERS)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "lightgbm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(MissingPackage, match="uplift needs the package lightgbm, which is not installed"):
        learners.fit_arms(rows(), 1)


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    "start",
    [
        "from experiments import cli; cli.commands(['--help'], standalone_mode=False)",
        "from experiments import cli; cli.commands(['uplift', '--help'], standalone_mode=False)",
        "import tempfile, pathlib; from experiments.settings import Settings; from experiments.store import Store; "
        "from web import create_app; folder = pathlib.Path(tempfile.mkdtemp()); settings = Settings.in_folder(folder); "
        "Store.open(settings, migrate=True).close(); create_app(settings)",
        "from experiments.uplift import answer, report; import experiments.uplift_wording",
        "from experiments.uplift import lists, model, serving, studies, task; import experiments.commands.lists",
        "from experiments import cli; cli.commands(['list', 'make', '--help'], standalone_mode=False)",
    ],
)
def test_nothing_loads_the_learners_before_they_learn(start: str) -> None:
    loaded = run(f"import sys; {start}; print('|'); print(*sys.modules)").split("|")[-1].split()
    assert not {name.split(".")[0] for name in loaded} & set(HEAVY)


def test_loading_the_learners_says_nothing_and_leaves_charts_alone() -> None:
    script = """
import warnings; warnings.simplefilter("error")
import matplotlib
before = dict(matplotlib.rcParams)
from experiments.uplift.learners import _imported
_imported("causalml.inference.meta"), _imported("causalml.inference.tree"), _imported("causalml.metrics")
assert dict(matplotlib.rcParams) == before
"""
    assert run(script) == ""
