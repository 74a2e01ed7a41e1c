import pickle

from stats.errors import Problem, StatError


def test_code_and_facts_survive_pickling_between_workers() -> None:
    error = pickle.loads(pickle.dumps(StatError(Problem.NOT_ENOUGH_DATA, arm=1, n=0)))
    assert (error.code, error.facts) == (Problem.NOT_ENOUGH_DATA, {"arm": 1, "n": 0})
    assert str(error) == "not_enough_data {'arm': 1, 'n': 0}"
