"""docs/api.md: its examples run, and its tables are complete."""

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from flask import Flask
from werkzeug.serving import make_server

import experiments
import web
from experiments.access import Scope
from experiments.documents import Kind
from experiments.ingest import ItemCode
from experiments.sdk.assignment import Reason
from web import api, problems

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")


@pytest.fixture
def server(app: Flask) -> Iterator[str]:
    serving = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    thread.join()
    serving.server_close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_examples_run_in_order(server: str, keys: dict[Scope, str], tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", TEXT, flags=re.S | re.M)
    assert len(blocks) > 10
    script = "\n".join(['curl() { command curl --noproxy "*" -sS --fail-with-body "$@"; echo; }', *blocks])
    environment = {"UPTURN": server, "KEY": keys[Scope.admin], "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-2_000:] + ran.stderr
    for answer in re.findall(r"^```json\n(.*?)^```", TEXT, flags=re.S | re.M)[:2]:
        assert msgspec.json.format(answer.encode(), indent=-1).decode() in ran.stdout
    assert (tmp_path / "report.parquet").read_bytes()[:4] == b"PAR1"


def test_every_operation_is_named() -> None:
    for operation in api.operations().listed:
        # The kinds of documents are alike: one of them stands for all.
        kinds = "|".join(kind.plural for kind in Kind)
        path = re.sub(rf"/({kinds})", "/(experiments|metrics|policies)", operation.path)
        path = re.sub(r"\{\w+\}", r"[^/ ]+?", path.replace(".", r"\."))
        assert re.search(rf"/v1{path}[ ?`\"]", TEXT), operation.path


def test_every_problem_is_explained_and_every_one_explained_exists() -> None:
    folder, domain = Path(web.__file__).parent, Path(experiments.__file__).parent
    ours = "".join(path.read_text() for path in folder.rglob("*.py"))
    sources = (
        "lifecycle",
        "registry",
        "reports",
        "lake",
        "priors",
        "programme/contribution",
        "rollout",
        "promises",
        "uplift/studies",
        "uplift/serving",
        "uplift/lists",
        "uplift/model",
    )
    theirs = "".join((domain / f"{name}.py").read_text() for name in sources)
    found = {code for code, _ in problems._BY_STATUS.values()}
    found |= set(re.findall(r'(?:RequestRefused|answer)\(\s*\d{3}, "(\w+)"', ours))
    found |= set(re.findall(r'(?:Conflict|NotFound)\(\s*"(\w+)"', ours + theirs))
    found |= {"invalid_document", "decision_needed", "decision_unexpected"}
    table = TEXT.split("| status | code |")[1]
    explained = {
        code for row in re.findall(r"^\| \d{3} \| (.*?) \|", table, flags=re.M) for code in re.findall(r"`(\w+)`", row)
    }
    assert explained == found


@pytest.mark.parametrize("codes", [ItemCode, Reason, Scope])
def test_every_code_that_programs_read_is_named(codes: type[ItemCode] | type[Reason] | type[Scope]) -> None:
    internal = {"assigned", "forced", "no_user_id"}
    assert {code for code in codes if f"`{code}`" not in TEXT} <= internal
