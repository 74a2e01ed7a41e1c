"""The pages for beginners run as they are written."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from openfeature import api
from playwright.sync_api import Browser

from experiments.sdk import Reason
from tests.clients import shop
from tests.clients.served import ROOT, Served, free_port, until
from tests.clients.website import Website, as_for_a_page

PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text("utf-8") for name in ("quickstart", "browser", "openfeature")}


def blocks(page: str) -> list[tuple[str, str]]:
    """Return a page's blocks of code with their languages."""
    found: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```", PAGES[page], flags=re.S | re.M)
    return found


def block(page: str, language: str) -> str:
    (found,) = [text for kind, text in blocks(page) if kind == language]
    return found


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_first_variant_in_five_minutes(tmp_path: Path, node_clients: Path) -> None:
    steps = {
        "sh": "{}",
        "python": "python - <<'END'\n{}END\n",
        "js": "cat > variant.mjs <<'END'\n{}END\n",
    }
    script = "".join(steps[kind].format(text) for kind, text in blocks("quickstart"))
    port = free_port()
    script = script.replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace(
        "upturn serve", f"upturn serve --port {port}"
    )
    (tmp_path / "bin").mkdir()
    # The command in front of all others, and npm as if it had done its work.
    for name, text in (("upturn", f'exec "{sys.executable}" -m experiments.cli "$@"'), ("npm", "true")):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "node_modules").symlink_to(node_clients / "node_modules")
    head = "trap 'kill $(jobs -p); wait' EXIT\ncurl() { command curl --noproxy '*' --fail-with-body \"$@\"; echo; }\n"
    path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", head + script],
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-2_000:] + ran.stderr
    assert '"variant":"ten"' in ran.stdout
    assert "Python: Ten yuan off, this week" in ran.stdout
    assert "Node: Ten yuan off, this week" in ran.stdout
    assert re.search(r'"variant":"ten"[^}]*"exposed":1\b', ran.stdout), ran.stdout[-2_000:]


@pytest.fixture
def headline(served: Served) -> None:
    """The experiment of the page for browsers, in which everybody is in the second variant."""
    variants = [{"key": "plain", "tactic": {"copy": "Welcome"}}, {"key": "warm", "tactic": {"copy": "欢迎回来"}}]
    weights = {"plain": 0.0, "warm": 1.0}
    served.create("experiments", shop.experiment("headline", variants, weights=weights))
    served.move("headline", "running")


@pytest.mark.usefixtures("headline")
def test_the_page_to_copy_works(served: Served, website: Website, node_clients: Path, chromium: Browser) -> None:
    folder = website.folder / "shop"
    folder.mkdir()
    as_for_a_page(node_clients, folder)
    copying = "npm() { true; }\n" + block("browser", "sh")
    subprocess.run(["bash", "-euc", copying], cwd=folder, check=True, timeout=30)
    html = block("browser", "html").replace("https://upturn.example", served.url).replace("upk_…", served.keys["page"])
    address = website.write("shop/index.html", html)

    context = chromium.new_context(locale="zh-CN")
    page = context.new_page()
    page.set_default_timeout(20_000)
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
    page.goto(address)
    page.get_by_role("heading", name="欢迎回来").wait_for()
    page.get_by_role("button").click()
    visitor = page.evaluate("localStorage.visitor")
    assert served.rows("user_id = :user", user=visitor) == []
    page.goto("about:blank")  # leaving sends what is queued
    rows = until(lambda: served.rows("user_id = :user", user=visitor))
    assert [(row.kind, row.name, row.variant, row.value_micros) for row in rows] == [
        ("exposure", "headline", "warm", None),
        ("event", "purchase", None, 25_500_000),
    ]
    context.close()
    assert troubles == []


@pytest.fixture
def recall(served: Served) -> dict[str, Any]:
    """What the examples of the OpenFeature page should give."""
    variants = [{"key": "none", "tactic": {}}, {"key": "ten", "tactic": {"copy": "Come back"}}]
    if served.ask("GET", "/v1/experiments/recall-page").status == 404:
        served.create("experiments", shop.experiment("recall-page", variants))
        served.move("recall-page", "running")
    (found,) = served.assignments([{"user": "u6"}], ["recall-page"])
    answer: dict[str, Any] = found["recall-page"]
    return answer


def test_the_example_for_python_runs(
    served: Served, recall: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UPTURN", served.url)
    monkeypatch.setenv("KEY", served.keys["app"])
    exec(
        compile(block("openfeature", "python").replace('"recall"', '"recall-page"'), "docs/openfeature.md", "exec"), {}
    )
    api.clear_providers()
    assert capsys.readouterr().out == f"{recall['variant']} SPLIT 1\n"


def test_the_example_for_node_runs(served: Served, recall: dict[str, Any], node_clients: Path) -> None:
    example = block("openfeature", "js").replace('"recall"', '"recall-page"')
    command = ["node", "--input-type=module", "-"]
    environment = os.environ | {"UPTURN": served.url, "KEY": served.keys["app"]}
    done = subprocess.run(
        command, input=example, cwd=node_clients, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.returncode) == (f"{recall['variant']} SPLIT 1\n", 0), done.stderr


@pytest.mark.parametrize("reason", sorted({*Reason} - {Reason.no_user_id, Reason.unknown_experiment}))
def test_every_reason_is_in_the_table(reason: Reason) -> None:
    assert f"`{reason}`" in PAGES["openfeature"]
