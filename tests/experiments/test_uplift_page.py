"""``upturn uplift --format html``: one page that needs no network and runs nothing."""

import base64
from pathlib import Path

import pytest
from click.testing import CliRunner

from experiments import cli, uplift_page
from experiments.uplift.report import Uplift
from tests.experiments.test_printout import Page
from tests.experiments.uplift import made

ODD = "<script>alert(1)</script> & 长"


@pytest.fixture(scope="module")
def found() -> Uplift:
    table = made.campaign(3000, arms=3)
    names = [{"gift": ODD}.get(name, name) for name in table["arm"].to_pylist()]
    table = table.set_column(table.column_names.index("arm"), "arm", [names])
    return made.answered(table, costs={ODD: 1.0}, budget=300.0).report


def test_a_page_needs_no_network_and_runs_nothing(found: Uplift) -> None:
    body = uplift_page.page(found)
    page = Page(body)
    assert body.startswith("<!doctype html>")
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert all(link.startswith("data:image/svg+xml;base64,") for link in page.links)
    # What it is worth, what it rests on, the budget, and how each variant's predictions came true.
    assert len(page.links) == 3 + 2
    assert "default-src 'none'" in body
    assert page.text.count(ODD) >= 5
    for link in page.links:
        drawn = base64.b64decode(link.split(",", 1)[1]).decode()
        assert "<script" not in drawn


def test_a_page_says_what_the_report_says(found: Uplift) -> None:
    text = Page(uplift_page.page(found)).text
    assert found.verdict == "target"
    assert "Give different users different variants." in text
    assert all(rule.words in text for rule in found.rules)
    assert "The best use of each budget" in text
    assert "the next 1,000" in text
    assert all(str(each.users) in text.replace(",", "") for each in found.quadrants)


def test_a_study_of_noise_has_a_page_too() -> None:
    report = made.answered(made.campaign(2000, effect="none")).report
    text = Page(uplift_page.page(report)).text
    assert "No usable difference between users was found" in text


def test_the_command_prints_it(tmp_path: Path) -> None:
    file = made.write(made.campaign(2000), tmp_path / "campaign.csv")
    options = ["--variant", "arm", "--control", "hold", "--outcome", "bought", "--feature", "city", "--learner", "t"]
    done = CliRunner().invoke(cli.commands, ["uplift", str(file), *options, "--format", "html"])
    assert done.exit_code == 0
    assert done.stdout.startswith("<!doctype html>")
    assert done.stdout.rstrip().endswith("</html>")


def test_the_next_thousand_is_what_the_path_brings(found: Uplift) -> None:
    points = found.budget.points
    assert all(each.next_thousand is not None for each in points)
    assert points[-1].next_thousand == pytest.approx(0)
    # The whole spend is below 1,000 more than any point: what is left of the curve.
    whole = points[-1]
    for each in points:
        if each.spend + 1000 >= whole.spend:
            assert each.next_thousand == pytest.approx(whole.expected - each.expected)
