"""What a newcomer relies on: the README's commands, and the versions that they install."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

from safekey_interp import __version__ as VERSION
from safekey_interp.errors import install_hint

ROOT = Path(__file__).parents[2]


def test_transformer_lens_is_capped_below_its_next_major_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [pin] = [line for line in project["dependencies"] if line.startswith("transformer-lens")]
    assert re.search(r"<\s*5\b", pin)


def test_constraints_pin_what_the_tests_run_with() -> None:
    pins = dict(line.split("==", 1) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert pins["torch"] == "2.13.0"
    assert {"transformers", "transformer-lens", "pandas", "plotly", "scikit-learn", "einops"} <= set(pins)


def test_readme_has_its_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    for mark, what in (("<!-- run -->", "safekey-interp probe"), ("<!-- tests -->", "pytest")):
        block = readme.split(mark, 1)[1].split("```", 2)[1]
        assert what in block
        assert "constraints.txt" in block


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> ZipFile:
    """The wheel as a release makes it, but for the index that a build in isolation asks."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [file] = folder.glob("*.whl")
    assert file.stat().st_size <= 5_500_000, "bytes"
    return ZipFile(file)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: ZipFile) -> None:
    inside = {Path(name).parts[0] for name in wheel.namelist()}
    assert inside == {"safekey_interp", f"safekey_interp-{VERSION}.dist-info"}
    wanted = (
        "py.typed",
        "evaluation/refusal_weights.json",
        "exploration/web/static/index.html",
        "models/organism/traces.jsonl",
        "reporting/pages/static/page.css",
        "reporting/pages/templates/page.html.jinja",
    )
    weights = [f"models/organism/weights/{name}/model.safetensors" for name in ("base", "sft", "safekey")]
    assert {f"safekey_interp/{name}" for name in (*wanted, *weights)} <= set(wheel.namelist())


def test_a_tag_and_the_changelog_carry_the_version() -> None:
    done = subprocess.run(["git", "tag", "--points-at", "HEAD", "v*"], cwd=ROOT, capture_output=True, check=False)
    assert set(done.stdout.decode().split()) <= {f"v{VERSION}"}
    newest = re.search(r"^## (\S+),", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == VERSION
    assert f"version: {VERSION}\n" in (ROOT / "CITATION.cff").read_text()


def test_hints_name_a_command_that_installs() -> None:
    """From the folder that the package was installed from, so that they work before a release."""
    words = shlex.split(install_hint("eval"))
    assert words[:2] == ["pip", "install"]
    source, extra = words[2].removesuffix("]").split("[")
    assert extra in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert source == "safekey-interp" or (Path(source) / "pyproject.toml").is_file()
