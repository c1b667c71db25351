"""Answers on disk: whole or absent."""

from __future__ import annotations

import subprocess
import sys

from safekey_interp.runs.storage import cache_folder
from safekey_interp.segmentation.answer_cache import AnswerCache, content_key


def test_a_kill_while_writing_leaves_no_half_answer(tmp_path):
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from safekey_interp.segmentation.answer_cache import AnswerCache\n"
        "Path.replace = lambda *names: os._exit(9)\n"
        "AnswerCache(Path(sys.argv[1])).put('ab' * 32, {'long': 'x' * 100_000})\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == 9
    assert list(tmp_path.glob("ab/*.json")) == []
    cache = AnswerCache(tmp_path)
    assert cache.get("ab" * 32) is None
    cache.put("ab" * 32, {"whole": True})
    assert cache.get("ab" * 32) == {"whole": True}


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SAFEKEY_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("SAFEKEY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "safekey-interp"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "safekey-interp"


def test_content_keys_see_where_parts_end():
    assert content_key("ab", "c") != content_key("a", "bc")
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
