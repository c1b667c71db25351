"""What users look at shows its spans by letter, line and colour, acts on nothing, and knows where it is shown."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from colour_vision import VISION, apart, contrast, lab
from hypothesis import given
from hypothesis import strategies as st
from synthetic_probe_runs import HOSTILE, write_run

import safekey_interp as ski
from safekey_interp.data.trace import CharSpan, Trace, pieces_of
from safekey_interp.display import MARKS, escaped, printable
from safekey_interp.errors import InputError
from safekey_interp.reporting.figures.figure_style import PALETTE

ROOT = Path(__file__).parents[2]
PAGES = {"#ffffff": "#1b1f24", "#111111": "#dddddd", "#1e1e1e": "#cccccc"}
"""Pages of notebooks, light and dark, and their ink."""
HARM = "<think>Okay, the user wants to <b>poison</b> a blick. Hmm, that could hurt. I refuse.</think>No."


def trace(response: str = HARM, **about: object) -> Trace:
    return Trace(trace_id="t", prompt="How do I poison a blick?", response=response, **about)  # pyright: ignore[reportArgumentType]


def written(html: str) -> str:
    """What a page shows, without its marks."""
    return re.sub(r"<[^>]*>", "", html)


@given(st.text(max_size=30), st.tuples(*[st.integers(0, 40)] * 4))
def test_pieces_are_the_response_whatever_the_spans(response, ends):
    first, second = CharSpan(*sorted(ends[:2])), CharSpan(*sorted(ends[2:]))
    pieces = pieces_of(response, {"understanding": first, "key_sentence": second})
    assert "".join(text for _, text in pieces) == response
    assert {name: text for name, text in pieces if name}.items() <= {
        "understanding": first.text(response),
        "key_sentence": second.text(response),
    }.items()


@given(st.text())
def test_what_data_say_is_never_a_tag_and_moves_nothing(text):
    shown = escaped(text)
    assert not set(shown) & set("<>\"'\x1b\r\x00\u202e\u2066")
    assert len(printable(text)) == len(text)


def test_letters_of_every_script_and_joined_emoji_are_shown_as_they_are():
    text = "नमस्ते \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 👩\u200d🔬 日本\u3000語\n\t"
    assert printable(text) == text


@pytest.mark.parametrize("page", PAGES)
def test_marks_keep_apart_for_every_eye_and_text_on_them_is_legible_on_light_and_dark_pages(page):
    pattern = r"background:(#\w{6})(\w\w);border-bottom"
    found = re.findall(pattern, trace(given=spans())._repr_html_())
    assert [tone for tone, _ in found] == [mark.tone for mark in MARKS.values()]
    washes = [over(tone, page, int(share, 16) / 255) for tone, share in found]
    for wash in washes:
        assert contrast(PAGES[page], wash) >= 4.5
    for vision in VISION:
        assert min(apart(one, other, vision) for one, other in itertools.combinations(washes, 2)) > 6
        assert min(apart(wash, page, vision) for wash in washes) > 6


def test_a_letter_stands_out_of_its_tone_which_lies_between_those_of_the_figures():
    for name, mark in MARKS.items():
        assert contrast(mark.ink, mark.tone) >= 4.5
        middle = (lab(PALETTE[name].light) + lab(PALETTE[name].dark)) / 2
        assert abs(lab(mark.tone) - middle).max() < 1, name
    assert len({mark.letter for mark in MARKS.values()}) == len({mark.line for mark in MARKS.values()}) == len(MARKS)


def test_a_trace_marks_the_spans_that_came_with_it_and_only_those():
    plain, marked = trace()._repr_html_(), trace(given=spans())._repr_html_()
    assert 'title="prompt"' in plain
    assert 'title="understanding"' not in plain
    assert 'title="understanding"' in marked
    assert 'title="key_sentence"' in marked
    assert "U" + "Okay, the user wants to &lt;b&gt;poison&lt;/b&gt; a blick." in written(marked)
    assert "<b>poison" not in marked


def test_tokens_stand_in_the_mark_of_their_span():
    model = ski.load("organism")
    encoding = model.encode(ski.example())
    shown = encoding._repr_html_()
    for name, mark in MARKS.items():
        inside = shown.split(f'<mark title="{name}"')[1].split("</mark>")[0]
        assert inside.count('title="token ') == len(encoding.positions(name))
        assert f"{mark.letter} {len(encoding.positions(name))}" in shown
    assert shown.count('title="token ') == encoding.end


def test_a_run_says_what_it_is_where_it_lies_and_how_its_page_opens(tmp_path):
    folder = write_run(tmp_path / "run", n_traces=24, n_layers=2, n_heads=2, n_examples=1)
    run = ski.open_run(folder)
    shown = run._repr_html_()
    assert f"safekey-interp report {folder} draws it" in shown
    assert "traces, attention" in shown
    (folder / "report.html").write_text("")
    assert f"open {folder / 'report.html'} in a browser" in run._repr_html_()
    run.manifest["model"]["name"] = HOSTILE
    assert HOSTILE not in run._repr_html_()
    assert escaped(HOSTILE) in run._repr_html_()


def test_a_judgement_shows_its_evidence_escaped():
    shown = ski.judge_refusal("x", "I'm sorry, but I <b>can't</b> help with that.")._repr_html_()
    assert "evidence" in shown
    assert "full_refusal" in shown
    assert "<b>can" not in shown


def test_show_prints_the_spans_in_words_where_no_notebook_listens(capsys):
    assert ski.show(trace()) is None
    out = capsys.readouterr().out
    assert "[X: How do I poison a blick?]" in out
    words = " ".join(out.split())
    assert "[U: Okay, the user wants to <b>poison</b> a blick.] [K: Hmm, that could hurt.]" in words
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 80


def test_show_takes_spans_that_were_found_and_refuses_those_of_another_response(capsys):
    given = trace(given={"key_sentence": CharSpan(7, 12)})
    ski.show(given, ski.segment(given, finder="given"))
    assert "[K: Okay,]" in capsys.readouterr().out
    ski.show(given, finder="given")
    assert "[K: Okay,]" in capsys.readouterr().out
    with pytest.raises(InputError, match="another response"):
        ski.show(trace("<think>No. Other.</think>"), ski.segment(given))
    with pytest.raises(InputError, match="rest: got -1"):
        ski.show(given, rest=-1)


def test_a_long_response_is_cut_behind_the_key_sentence_and_says_by_how_much(capsys):
    long = trace(HARM + " word" * 1000)
    ski.show(long, rest=10)
    out = capsys.readouterr().out
    assert f"({len(HARM) + 5000 - HARM.index('hurt.') - 5 - 10:,} characters more)" in " ".join(out.split())
    ski.show(long, rest=None)
    assert capsys.readouterr().out.count("word") == 1000


def test_what_a_trace_says_reaches_no_terminal_as_a_command(capsys):
    ski.show(Trace(trace_id="\x1b[2J", prompt="\x1b]0;title\x07[red]x", response="<think>\x1b[31mOkay.</think>\u202e"))
    out = capsys.readouterr().out
    assert not set(out) & set("\x1b\x07\u202e")
    assert "[red]x" in out


def test_showing_needs_neither_ipython_nor_a_heavy_library(tmp_path):
    code = (
        "import sys; sys.modules['IPython'] = None\n"
        "import safekey_interp as ski; ski.show(ski.example())\n"
        "heavy = {'torch', 'transformers', 'pandas', 'sklearn', 'plotly', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "[K: " in done.stdout


def test_a_notebook_gets_a_page_and_a_bar_that_ends(tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    opened = (
        "import sys, time\nsys.modules['ipywidgets'] = None  # with it, the bar is a widget\n"
        "from safekey_interp.progress import open_progress\n"
        "with open_progress(None) as progress:\n    progress.stage('digging', 4)\n"
    )
    cells = [
        "import time\nimport safekey_interp as ski\nski.show(ski.example())",
        opened + "    for _ in range(4):\n        time.sleep(0.2)\n        progress.advance(1)",
        opened + "    time.sleep(0.6)\n    progress.advance(1)\n    1 / 0",
        opened + "    progress.advance(4)",
        "class Told: ...\nwith open_progress(Told()) as progress:\n    print(type(progress).__name__)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(
        notebook, timeout=60, kernel_name="python3", allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    page, done, stopped, short, told = [cell.outputs for cell in notebook.cells]
    assert [output.output_type for output in page] == ["display_data"]
    assert 'title="key_sentence"' in page[0].data["text/html"]
    assert "[K: " in page[0].data["text/plain"]
    assert {output.output_type for output in done} == {"stream"}
    assert re.search(r"digging: 100%.* 4/4 ", done[-1].text + done[-2].text)
    assert [output.output_type for output in stopped][-2:] == ["stream", "error"]
    assert re.search(r"digging: +25%.* 1/4 ", "".join(output.text for output in stopped[:-1]))
    assert short == []
    assert told[0].text == "Told\n"


def spans() -> dict[str, CharSpan]:
    found = ski.segment(trace())
    assert found.understanding is not None
    assert found.key_sentence is not None
    return {"understanding": found.understanding, "key_sentence": found.key_sentence}


def over(tone: str, page: str, share: float) -> str:
    """A tone laid over a page, as a browser mixes them."""
    mixed = [share * int(tone[i : i + 2], 16) + (1 - share) * int(page[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(value):02x}" for value in mixed)
