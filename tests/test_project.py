"""What a newcomer relies on: the README's commands, and the versions that they install."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


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


def test_the_wheel_holds_the_package_alone() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["packages"] == ["safekey_interp"]
