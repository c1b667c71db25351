"""Polarity of labels: what truth values, numbers and words of a column say of harm.

:data:`WORDS` are read in any column, :data:`TRUE_MEANS` says what a truth value of a column means, by the column's
name. What neither knows is a class of the data's own when it is a word that the user asked for, and else needs a map
from values to classes (``--label-map``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safekey_interp.data.cell_values import kind_in_words
from safekey_interp.data.column_names import LABEL_FIELDS, plain_name
from safekey_interp.errors import InputError

HARMFUL, BENIGN = "harmful", "benign"
WORDS: Mapping[str, str] = {
    **dict.fromkeys(("harmful", "unsafe", "jailbreak", "malicious", "vanilla_harmful", "adversarial_harmful"), HARMFUL),
    **dict.fromkeys(("toxic", "harmful_prompt", "prompt_harmful"), HARMFUL),
    **dict.fromkeys(("benign", "safe", "harmless", "unharmful", "not_harmful", "non_harmful", "nontoxic"), BENIGN),
    **dict.fromkeys(("non_toxic", "not_toxic", "not_unsafe", "vanilla_benign", "adversarial_benign"), BENIGN),
}
"""Words by their plain names."""
TRUE_MEANS: Mapping[str, str] = {
    **dict.fromkeys(("is_unsafe", "unsafe", "is_harmful", "harmful", "harm", "is_toxic", "toxic", "toxicity"), HARMFUL),
    **dict.fromkeys(("is_jailbreak", "jailbreak", "jailbreaking", "is_malicious", "malicious", "label"), HARMFUL),
    **dict.fromkeys(("is_safe", "safe", "is_benign", "benign", "is_harmless", "harmless"), BENIGN),
}
"""What ``true`` in a column means; ``false`` is the other."""
SORTS = (
    "category",
    "type",
    "data_type",
    "prompt_label",
    "prompt_harm_label",
    "harm_label",
    "safety",
    "class",
    "jailbreak",
)
"""Columns that are labels where they hold one of :data:`WORDS`, and else sort the data in a way of their own."""

_TRUE, _FALSE = ("1", "true"), ("0", "false")
_YES, _NO = ("yes", "y", "t"), ("no", "n", "f")
_LONGEST_CLASS = 20
"""Characters of a text that may be the value of a class; a longer one is a text."""


class UnknownLabel(InputError):
    """A value that no table says the meaning of."""

    def __init__(self, where: str, column: str, value: Any) -> None:
        super().__init__(f"{where}: {column}: got {kind_in_words(value)}, {self.remedy}")
        self.column = column

    remedy = (
        "expected a word, or a truth value in a column such as is_safe; say what it means, as in "
        "--label-map VALUE=harmful,VALUE=benign, or name another column with --label-field"
    )

    def with_values(self, source: str, values: list[str]) -> InputError:
        """The same with the values that the column holds."""
        shown = ", ".join(values[:8]) + (", …" if len(values) > 8 else "")
        return InputError(f"{source}: {self.column}: got the values {shown}; {self.remedy}")


def label_columns(columns: Mapping[str, str]) -> tuple[str, ...]:
    """The columns that may say the label, by plain names, the first of them that does so first."""
    return tuple(columns[name] for name in dict.fromkeys((*LABEL_FIELDS, *TRUE_MEANS, *SORTS)) if name in columns)


def label_word(value: Any, column: str, where: str, *, asked: bool, labels: Mapping[str, str] | None) -> str | None:
    """The label that a value says.

    Args:
        value: of the cell.
        column: its column.
        where: how messages name the row.
        asked: whether the user, or the name ``label``, says that the column is the label.
        labels: classes by value, in any case, as the user gave them; an empty class is no label.

    Returns:
        A word; None for no value, or where a column that nobody asked for is no label.

    Raises:
        UnknownLabel: nothing says what the value means.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # A column of whole numbers with a gap comes out of pandas as floats.
    plain = int(value) if asked and isinstance(value, float) and value.is_integer() else value
    word = str(plain).strip() if isinstance(plain, str | int | float) else ""
    folded, name = word.casefold(), plain_name(column)
    if isinstance(value, str) and not word:
        return None
    if labels and folded in labels:
        return labels[folded] or None
    if known := WORDS.get(plain_name(word)):
        return known
    is_named = name in LABEL_FIELDS
    if name in TRUE_MEANS and (truth := _truth(folded, by_word=not is_named)) is not None:
        return TRUE_MEANS[name] if truth else _other(TRUE_MEANS[name])
    is_number = is_number or folded.lstrip("+-").replace(".", "").isdecimal()
    is_word = isinstance(value, str) and not is_number
    if asked:
        # A word is a class of the data's own, unless the column is one of truth values, or the user mapped others.
        if is_word and not labels and (is_named or (name not in TRUE_MEANS and _truth(folded, by_word=False) is None)):
            return word
    elif name in SORTS or not word or is_number or len(word) > _LONGEST_CLASS or " " in word:
        return None
    raise UnknownLabel(where, column, value)


def _truth(word: str, *, by_word: bool) -> bool | None:
    true, false = (_TRUE + _YES, _FALSE + _NO) if by_word else (_TRUE, _FALSE)
    return True if word in true else False if word in false else None


def _other(label: str) -> str:
    return BENIGN if label == HARMFUL else HARMFUL
