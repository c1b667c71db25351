"""Requests that every model of a toy language answers, and traces that each of them reads alike.

They are the same for all models of a language, so that one number names one.
"""

from __future__ import annotations

import random
from functools import lru_cache

from analysis.replication.toy_languages import LANGUAGES, LanguageName
from analysis.replication.toy_study_design import N_BENIGN, N_HARMFUL, N_PLAIN, N_SEEN, REQUEST_SEED
from safekey_interp.data.trace import Trace
from safekey_interp.models.organism.language import dialogue, different_requests
from safekey_interp.models.organism.vocabulary import BENIGN_KINDS, HARMFUL_KINDS, Pair, Split
from safekey_interp.models.organism.wrappers import Wrapper


@lru_cache
def requests(name: LanguageName, split: Split = "test") -> tuple[Trace, ...]:
    """The requests that every model of a language answers, in their order; ``development`` for the pilot."""
    language, rng = LANGUAGES[name], random.Random(f"{REQUEST_SEED} {name} {split}")
    forms: list[tuple[Wrapper | None, int, int]] = [(None, N_PLAIN, N_PLAIN)]
    forms += [(form, N_SEEN, N_SEEN) for form in language.wrappers_of("seen")]
    forms += [(form, N_HARMFUL, N_BENIGN) for form in language.wrappers if form.split == split]
    return tuple(
        trace
        for form, n_harmful, n_benign in forms
        for kinds, n in ((HARMFUL_KINDS, n_harmful), (BENIGN_KINDS, n_benign))
        for trace in different_requests(rng, kinds, split, form, n, words=language.vocabulary)
    )


@lru_cache
def read_alike(name: LanguageName) -> tuple[Trace, ...]:
    """The traces that every model of a language reads for its mechanism, with U and K as training writes them."""
    language, rng = LANGUAGES[name], random.Random(f"{REQUEST_SEED} {name} read")
    unseen = language.wrappers_of("test")
    asked = [
        trace
        for kinds in (HARMFUL_KINDS, BENIGN_KINDS)
        for form, n in ((None, 2 * len(unseen)), *((form, 2) for form in unseen))
        for trace in different_requests(rng, kinds, "test", form, n, words=language.vocabulary)
    ]
    forms = {form.name: form for form in unseen}
    read = []
    for number, trace in enumerate(asked):
        pair = Pair(trace.meta["verb"], trace.meta["noun"], language.vocabulary)
        said = dialogue(rng, pair, forms.get(trace.meta["wrapper"]), safe=pair.is_harmful, language=language)
        read.append(said.with_(trace_id=f"{number:03d}"))
    return tuple(read)
