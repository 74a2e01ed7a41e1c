"""The page on assignment: its examples run, and it names every reason and operator."""

import re
from pathlib import Path

import pytest

from experiments.sdk import DocumentError, Reason, compile_condition

PAGE = (Path(__file__).parents[3] / "docs" / "assignment.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_has_examples():
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.splitlines()[0])
def test_example_runs(example):
    exec(compile(example, "docs/assignment.md", "exec"), {})


@pytest.mark.parametrize("reason", Reason)
def test_reason_is_explained(reason):
    assert f"`{reason}`" in PAGE


def test_every_operator_is_explained():
    with pytest.raises(DocumentError) as refused:
        compile_condition({"a": {"$unknown": 1}})
    operators = refused.value.remedy.removeprefix("use one of ").split(", ")
    assert [name for name in operators if f"`{name}`" not in PAGE] == []
