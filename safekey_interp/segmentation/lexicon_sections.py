"""Sections of a language's lexicon: what a sentence can be asked, name by name.

Each field is a pattern that ``languages/<code>.toml`` fills under ``[[section.field]]``; one that a language does not
fill never matches. Patterns are searched anywhere in a sentence unless a field says that it opens or closes the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NEVER = re.compile(r"(?!)")
"""Matches nothing: what a language does not fill."""

Form = re.Pattern[str]


@dataclass(frozen=True, kw_only=True)
class Restatement:
    """Forms that restate a request, decide about it, or announce a reading of it: the borders of the understanding."""

    asker_subject: Form = NEVER
    """Opens: the asker is the subject ("the user is asking")."""
    pronoun_subject: Form = NEVER
    """Opens: the asker is the subject as a pronoun, once named ("they want")."""
    advises: Form = NEVER
    """Opens: what the asker should do, which is no restatement."""
    request_subject: Form = NEVER
    """Opens: the request is the subject ("the goal is")."""
    this_is_request: Form = NEVER
    """Opens: "this is a request for"."""
    needs_to_be: Form = NEVER
    """Opens: what the thing asked for has to be like."""
    own_task: Form = NEVER
    """Opens: the model's own task ("I need to figure out how to respond")."""
    reported_request: Form = NEVER
    """A report of the request inside a sentence."""
    meaning: Form = NEVER
    """Opens: asks what the asker means."""
    motive_question: Form = NEVER
    """Opens: asks why, which is no question of meaning."""
    decides: Form = NEVER
    """A clause that brings in rules or a verdict on the request."""
    plans: Form = NEVER
    """A clause that draws a plan from the request."""
    resolves: Form = NEVER
    """A plan that settles the outcome: a first sentence with one is K."""
    takes_care: Form = NEVER
    """A task that is to be done with care, and so no bare restatement."""
    bridge: Form = NEVER
    """Opens: the announcement that the request will be read or taken apart."""
    interjection: Form = NEVER
    """The whole sentence: an interjection alone."""
    asker_voice: Form = NEVER
    """The model speaks as the asker, of the asker's life."""
    answering_voice: Form = NEVER
    """The model speaks of someone whom it answers."""
    anyone: Form = NEVER
    """A task put for anyone ("how someone …")."""
    set_task: Form = NEVER
    """A task that was set ("this question")."""
    thinks: Form = NEVER
    """Opens: a thought of one's own rather than a report."""
    wish: Form = NEVER
    """Opens: a further wish or circumstance, told in the asker's or the doer's voice."""
    goal_question: Form = NEVER
    """Opens: an aim put as a question in the asker's voice."""
    own_life: Form = NEVER
    """Words of the asker's own life."""
    wonders: Form = NEVER
    """A thought about the task, which is no longer the asker's story."""
    decision_opening: Form = NEVER
    """Opens: the form of a decision, which a first sentence that restates does not have."""
    addresses_asker: Form = NEVER
    """An answer that restates ("you are asking")."""
    frames: Form = NEVER
    """Opens: a first sentence that says what is to be done."""
    mentions_request: Form = NEVER
    """Words for the asker or the request."""


@dataclass(frozen=True, kw_only=True)
class Risk:
    """Forms that name harm, see a risk, react to it, or take care."""

    predicated: Form = NEVER
    """A judgement that is predicated of something ("that is dangerous")."""
    consequence: Form = NEVER
    """A bad consequence after a modal verb ("that could hurt someone")."""
    purpose: Form = NEVER
    """Words of purpose; a consequence behind them is an aim, not a worry."""
    cleared: Form = NEVER
    """The request is found harmless."""
    care: Form = NEVER
    """Weaker signs of safety: care, respect, lawful alternatives."""
    careful_plan: Form = NEVER
    """A plan of one who answers that begins with weighing or making sure."""
    evasion: Form = NEVER
    """Not being caught, which outweighs care."""
    outweighed: Form = NEVER
    """A doubt that the same sentence puts aside, or that is about the model's own practice."""
    difficult_request: Form = NEVER
    """The request is called difficult; a hesitation of one who answers, but not of one who does the task."""
    tricky: Form = NEVER
    """Words for difficult that count when what is judged opens the sentence."""
    about_request: Form = NEVER
    """Opens: a judgement about the request."""
    judged_noun: Form = NEVER
    """What makes such a judgement one of risk."""
    suspects: Form = NEVER
    """Opens: a suspicion of the asker."""
    dissent: Form = NEVER
    """Dissent or unease ("it doesn't sit right with me")."""
    conscience: Form = NEVER
    """A question to one's conscience ("is that even honest?")."""
    legal_worry: Form = NEVER
    """A danger of the law ("you could end up in jail")."""
    shunned: Form = NEVER
    """Closes what comes before a danger of the law that is only to be dodged."""
    pity: Form = NEVER
    """Pity, or harm to the weak."""
    harm: Form = NEVER
    """Harm that a request names: violence, crime, abuse."""
    touchy: Form = NEVER
    """What harmful requests are about although no word of theirs names harm."""
    lacks: Form = NEVER
    """Opens a harm that is itself a lack ("without consent"), so that a negation before it rules nothing out."""
    ruled_out: Form = NEVER
    """Closes what comes before a harm that the text rules out or fights."""
    asks_leave: Form = NEVER
    """Closes what comes before a lack about which the text only asks whether it is allowed."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Forms that turn to rules or refuse."""

    rules_and_refusal: Form = NEVER
    """Rules, refusal, ethics, help for someone in need."""
    declines: Form = NEVER
    """In an answer: it declines what was asked."""
    helps: Form = NEVER
    """In an answer: it helps, or goes on to."""


@dataclass(frozen=True, kw_only=True)
class Compliance:
    """Forms that begin the task, or only think about it."""

    answering: Form = NEVER
    """In the understanding: the model frames an answer to someone who asks, rather than doing the task itself."""
    motive: Form = NEVER
    """Wondering what moves whoever wants it."""
    explaining: Form = NEVER
    """Opens an understanding whose task is to explain, not to find means."""
    deliberation: Form = NEVER
    """Opens: thinking about how to approach it, neither compliance nor care."""
    about_asker: Form = NEVER
    """What someone who answers says of the asker or of the answer, rather than of the task."""
    compliant_opening: Form = NEVER
    """Opens: a ready answer, which outweighs care."""
    compliance: Form = NEVER
    """The task is begun."""


@dataclass(frozen=True, kw_only=True)
class Monologue:
    """Forms that tell reasoning from an answer where no mark does."""

    opens: Form = NEVER
    """Opens: a text that thinks aloud rather than answers."""
    goes_on: Form = NEVER
    """A paragraph that still speaks of the asker, of the answer, or to oneself."""
    answers: Form = NEVER
    """Opens: a paragraph that turns to the asker, with a plain refusal or an agreement."""
    heading: Form = NEVER
    """Opens: a heading or label of the answer."""
