"""Inputs of the study of a trained SmolLM2: base model, prompts, training traces that pass the gate, and the choice.

Each is made once in a process, when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from analysis.real_model.real_study_choice import Chosen, read_chosen
from analysis.real_model.real_study_design import Setting
from analysis.real_model.real_study_gate import check_style
from analysis.real_model.real_study_prompts import Prompts, read_prompts
from analysis.real_model.real_study_selection import Selected, read_go_aheads, select
from analysis.real_model.real_study_traces import training_traces
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.models.model import Model, load


def smollm2() -> Model:
    """SmolLM2-135M-Instruct as it is."""
    return load("smollm2", device="cpu", dtype="float32")


class Study:
    """A folder of data and a folder of runs.

    Args:
        out: of the runs.
        data: of the public files; None where none are read.
        base: loads the model that is fine-tuned, anew each time.
    """

    def __init__(self, out: Path, data: Path | None = None, base: Callable[[], Model] = smollm2) -> None:
        self.out, self.data, self.base = out, data, base
        self._traces: dict[Setting, list[Trace]] = {}

    @cached_property
    def prompts(self) -> Prompts:
        """All prompts."""
        return read_prompts(self._folder())

    @cached_property
    def chosen(self) -> Chosen:
        """The pilot's choice."""
        return read_chosen(self.out / "chosen.json")

    @cached_property
    def selection(self) -> tuple[list[Selected], list[str]]:
        """What is trained on, and SmolLM2's own answers to the benign prompts."""
        self.out.mkdir(parents=True, exist_ok=True)
        go_aheads = read_go_aheads(self._folder())
        return select(self.prompts, go_aheads, model=self.base(), cache=self.out / "answers.jsonl")

    def traces(self, setting: Setting) -> list[Trace]:
        """The training traces of a setting.

        Raises:
            InputError: the style of U gives the label away.
        """
        if setting not in self._traces:
            made = training_traces(*self.selection, read_go_aheads(self._folder()), setting)
            check_style(made)
            self._traces[setting] = made
        return self._traces[setting]

    def beside(self, name: str) -> Study:
        """The same data and choice with a folder of runs of its own."""
        other = Study(self.out / name, self.data, self.base)
        other.__dict__ |= {"prompts": self.prompts, "chosen": self.chosen}
        other._traces = self._traces
        return other

    def _folder(self) -> Path:
        if self.data is None:
            raise InputError("--data: expected the folder of prompts and traces, such as ../shared/data")
        return self.data
