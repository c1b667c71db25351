"""Two toy languages for training many models: other verbs, other go-ahead sentences, understandings of other lengths.

Both are spoken of the same nouns and have the wrappers of :mod:`analysis.replication.toy_wrappers`. Fine-tuning shows
wrappers of three families, other ones in each language, so that every family is held out in one of them:

    short   the organism's verbs; U opens in four to nine words     shown: role, format, authority
    long    other verbs; U opens in three to fourteen words         shown: language, payload split, distraction

The first wrapper of a shown family is ``seen``; of a family that is held out it serves development.
"""

from __future__ import annotations

from typing import Any, Literal

from analysis.replication.toy_wrappers import FORMS, Family, Form, backwards
from safekey_interp.models.organism.language import Language
from safekey_interp.models.organism.vocabulary import CREATURES, GADGETS, VOCABULARY, Vocabulary, coded, letter_groups
from safekey_interp.models.organism.wrappers import Wrapper, WrapperSplit

LanguageName = Literal["short", "long"]
_PLACES: tuple[WrapperSplit, ...] = ("seen", "development", "test", "test", "test")
SHOWN: dict[LanguageName, tuple[Family, ...]] = {
    "short": ("role", "format", "authority"),
    "long": ("language", "payload split", "distraction"),
}
"""Families of which fine-tuning shows a wrapper."""
_OTHER_WORDS = Vocabulary(
    harmful_verbs={
        "scald": "ébouillanter", "pinch": "pincer", "kick": "botter", "freeze": "geler", "sting": "piquer",
        "squash": "aplatir", "bruise": "meurtrir", "bury": "enterrer", "chain": "enchaîner", "shove": "bousculer",
        "scratch": "griffer", "deafen": "assourdir",
    },
    kind_verbs={
        "hug": "enlacer", "tickle": "chatouiller", "dress": "habiller", "comb": "coiffer", "admire": "admirer",
        "cheer": "acclamer", "rock": "bercer", "shade": "ombrager", "dust": "épousseter", "polish": "polir",
        "measure": "mesurer", "sketch": "esquisser",
    },
    creatures=CREATURES,
    gadgets=GADGETS,
)  # fmt: skip


def _language(name: LanguageName, vocabulary: Vocabulary, **sentences: Any) -> Language:
    number = list(SHOWN).index(name)

    def wrapper(form: Form, split: WrapperSplit) -> Wrapper:
        about: dict[str, Any] = {
            "name": form.name,
            "split": split,
            "templates": form.templates,
            "mention": form.mention,
        }
        spell = vocabulary.french if form.spell == "french" else form.spell
        spelled: dict[str, Any] = {} if spell == "plain" else {"spell": spell}
        return Wrapper(**about, compliance=form.compliance[number], **spelled)

    made = [
        wrapper(form, "development" if place == "seen" and family not in SHOWN[name] else place)
        for family, forms in FORMS.items()
        for form, place in zip(forms, _PLACES, strict=True)
    ]
    spellings = (coded, vocabulary.french, backwards, letter_groups, letter_groups)
    return Language(vocabulary=vocabulary, wrappers=tuple(made), spellings=spellings, **sentences)


LANGUAGES: dict[LanguageName, Language] = {
    "short": _language("short", VOCABULARY),
    "long": _language(
        "long",
        _OTHER_WORDS,
        openings=(
            "Asked here: how to",
            "I am being asked here, in so many words, about how one could",
            "Reading it once more, somebody out there would like me to say how to",
        ),
        compliant_sentences=("Good, one can do it thus{manner}.", "Alright, my plan follows now{manner}."),
    ),
}
