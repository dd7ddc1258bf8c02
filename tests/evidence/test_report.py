"""report: one page that holds what was run, and needs nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_evidence_commands import run_with

import rlrun
from rlrun.errors import UsageError

pytestmark = pytest.mark.usefixtures("folder")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")


def two_groups(seeds: int = 2) -> None:
    """Runs of two configs in ``runs``."""
    for seed in range(seeds):
        run_with(100.0 + seed, f"a{seed}", seed)
        run_with(200.0 + seed, f"b{seed}", seed, hyperparameters={"gamma": 0.9})


def charts_of(page: str) -> Any:
    """What the page's script draws."""
    found = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))


def test_the_page_says_what_came_out_and_how_to_repeat_it(rlrun_command: Callable[..., Any]):
    two_groups()
    said = rlrun_command("report", "a=runs/*/*/a*", "b=runs/*/*/b*", "--out", "pages/both.html")
    assert said.code == 0, said.err
    assert said.out.strip() == "pages/both.html"
    page = Path("pages/both.html").read_text()
    for text in ("No difference between a and b can be shown", "hyperparameters.gamma", "0.9", "rlrun train --config"):
        assert text in page
    (chart,) = [chart for chart in charts_of(page) if chart["what"].startswith("evaluation")]
    groups = chart["axes"]["timesteps"]["groups"]
    assert [group["name"] for group in groups] == ["a (2 seeds)", "b (2 seeds)"]
    assert chart["axes"]["timesteps"]["x"] == [10, 20]
    assert all(low <= high for low, high in zip(groups[0]["low"], groups[0]["high"], strict=True))


def test_the_page_asks_for_nothing_from_elsewhere():
    two_groups(1)
    page = rlrun.report("runs").read_text()
    assert "default-src 'none'" in page
    assert not re.search(r'(src|href)\s*=\s*"(?!data:)', page)


def test_what_runs_say_is_shown_and_never_run():
    path = run_with(1.0, "a", 0)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["versions"]["torch"] = "<script>alert(1)</script>"
    (path / "manifest.json").write_text(json.dumps(manifest))
    page = rlrun.report("</script><b>=runs/*/*/a").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "</script><b>" not in page
    assert charts_of(page)[0]["axes"]["timesteps"]["groups"][0]["name"] == "</script><b> (1 seed)"


def test_a_run_without_any_result_has_a_page_too():
    path = run_with(None, "a", 0, evaluation={"every": 0, "episodes": 0})
    for name in ("evaluations.csv", "episodes.csv", "results.json"):
        (path / name).unlink(missing_ok=True)
    page = rlrun.report(path).read_text()
    assert "No run has been evaluated at its end yet." in page
    assert "Learning curves" not in page


def test_groups_on_different_envs_are_not_compared():
    run_with(1.0, "a", 0)
    run_with(2.0, "b", 0, env={"id": "Acrobot-v1"})
    page = rlrun.report("runs").read_text()
    assert "Returns on different envs cannot be compared" in page
    assert "evaluation return, Acrobot-v1" in page


def test_a_wrong_name_or_place_is_said_and_nothing_is_written(rlrun_command: Callable[..., Any]):
    run_with(1.0, "a", 0)
    assert rlrun_command("report", "runs", "--out", "page.pdf").code == 2
    assert not Path("page.pdf").exists()
    with pytest.raises(UsageError):
        rlrun.report("runs", out="runs/a.html/b.html" if os.path.exists("runs/a.html") else "/proc/nothing/page.html")
    assert rlrun_command("report", "nothing").code == 2


def drawn(page: Path, *options: str) -> str:
    """The page's elements after its scripts ran, and what the browser complained of."""
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000"]
    command += ["--enable-logging=stderr", "--dump-dom", *options, page.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_browser_draws_the_curves(width: int, theme: str):
    two_groups()
    page = rlrun.report("a=runs/*/*/a*", "b=runs/*/*/b*")
    options = [f"--window-size={width},900"]
    options += ["--blink-settings=preferredColorScheme=0"] if theme == "dark" else []
    elements = drawn(page, *options)
    canvas = re.search(r"<canvas width=\"(\d+)\"", elements)
    assert canvas is not None
    assert int(canvas.group(1)) <= max(width, 500)  # no window of Chromium is narrower
    assert "a (2 seeds)" in elements[elements.index("u-legend") :]


@needs_browser
@pytest.mark.slow
def test_ten_runs_open_within_two_seconds():
    two_groups(5)
    page = rlrun.report("a=runs/*/*/a*", "b=runs/*/*/b*")
    empty = Path("empty.html")
    empty.write_text("<!doctype html><title>empty</title>")
    took = {}
    for name, path in (("empty", empty), ("report", page)):
        began = time.monotonic()
        drawn(path)
        took[name] = time.monotonic() - began
    assert took["report"] - took["empty"] < 2
