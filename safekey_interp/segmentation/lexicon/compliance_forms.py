"""Which forms of words frame a task, weigh an answer, or go ahead? Patterns for
:mod:`~safekey_interp.segmentation.sentence_classes`.

Whoever answers a user and whoever does a task begin in different words; deliberation ("let me think about how to
approach this") is neither a go-ahead nor care.
"""

from __future__ import annotations

import re

from safekey_interp.segmentation.lexicon.harm_words import any_of

MOTIVE = re.compile(
    r"\bwhy (?:(?:would|do|does|might|are|is) )?(?:someone|somebody|anyone|anybody|people|they|the user|"
    r"a person)\b.{0,40}\b(?:want|ask|do|need|interested)\b|"
    r"\bwhat (?:would|could|might) (?:make|drive|lead|cause|motivate) (?:someone|somebody|anyone|people|a person|"
    r"them)\b",
    re.IGNORECASE,
)
"""Wondering what moves whoever wants it."""

ANSWERING = re.compile(
    r"\b(?:(?:the|this|our) user|user's (?:request|question|query|prompt|message)|(?<!what )they(?:'re| are| want|"
    r" ask)|asks|"
    r"asked|ask(?:ing)?(?: me| for| about| how| if| whether| what| where| why| when| who| which| to\b|,|:)|wants? me|"
    r"you(?:'re| are) asking|respond(?:ing)?|reply|request|query|"
    r"someone (?:who|says)|help (?:someone|the|them))\b",
    re.IGNORECASE,
)
_ACTOR = r"(?:I|you|we|one|someone|somebody|people)"
_ABLE = r"(?:can|could|might|would)"
# What, which or the … that someone could use asks for means, not for an explanation.
EXPLAINING = re.compile(
    r"\W*(?:(?:okay|alright|so|well)\b\W{1,4}){0,2}I(?:'m| am)? (?:need to|have to|want to|trying to|"
    r"should) (?:figure out |understand |find out |know |determine |explain |analy[sz]e |compare |"
    r"describe |outline |define |discuss )+"
    r"(?:why|when|whether|if|how \w+ (?:works?|is|are|does|combats?)|"
    rf"(?:what|which|the|where(?! (?:to|is|I|we)\b))\b(?![^.?!]{{0,60}}\b(?:{_ABLE} (?:{_ACTOR}|be)|"
    rf"{_ACTOR} {_ABLE})\b))\b"
    r"(?! someone| I could|.{0,30}\bways? to)",
    re.IGNORECASE,
)
SUSPECTS = re.compile(
    r"\W*(?:(?:hmm+|oh|wait|okay|well|but|so|maybe|perhaps)\b\W{1,4}){0,3}(?:they|the user|he|she|this person)"
    r"(?:'re| are| could| might| may| seems?| must)\b",
    re.IGNORECASE,
)
CAREFUL_PLAN = re.compile(
    r"\b(?:I|we)(?:'ll|'d better| should| need to| must| have to| want to|'m going to)(?: \w+ly| also| first|"
    r" definitely)? (?:acknowledge|assess|consider|recogni[sz]e|check|address|make sure|ensure|"
    r"remember|recall|determine (?:if|whether)|evaluate|validate|verify|clarify|emphasi[sz]e|respond|"
    r"look at|weigh|keep in mind|be (?:clear|honest|mindful))\b|\bmy (?:goal|priority|first thought|"
    r"response)\b",
    re.IGNORECASE,
)
DELIBERATION = re.compile(
    r"\W*(?:(?:hmm+|okay|alright|so|well|first)\b\W{1,4}){0,3}(?:let me|let's|I need to|I should|"
    r"I have to|I'll)"
    r" (?:(?:start|begin) by )?(?:think|thinking|break|breaking|see|go|approach|understand|"
    r"understanding|figure|figuring|process|parse|read|look|unpack|consider|recall|recalling)\b",
    re.IGNORECASE,
)
ABOUT_ASKER = re.compile(
    r"\b(?:they|them|their|he|she|users?|users?'s?|asker|request|question|query|respond\w*|response|answer\w*|reply|"
    r"topic|statement|claim|why|whether|address)\b",
    re.IGNORECASE,
)
"""What someone who answers says of the one who asked, or of the answer, rather than of the task."""
COMPLIES = re.compile(r"\W*(?:sure|certainly|of course|absolutely|here(?:'s| is| are)|to [a-z]+)\b", re.IGNORECASE)
GO_AHEAD = re.compile(
    any_of(
        r"\b(?:where|how) (?:do|should|would|can|to)\b.{0,12}\b(?:start|begin|approach|go about)\b",
        r"\b(?:start|begin|kick off) (?:by|with|off)\b",
        r"\bfirst(?:ly| off| of all| thing| step)?\b",
        r"\bstep (?:one|1|by step)\b",
        r"\b(?:maybe|perhaps)\b",
        r"\b(?:one|another|the best|a good|some|possible) (?:ways?|methods?|approach|options?|ideas?|"
        r"strateg\w+)\b",
        r"\b(?:could|might|can) (?:be|use|try|involve|include|work|do|make|start)\b",
        r"\bthere (?:are|might be|must be|could be) (?:\w+ ){0,3}ways?\b",
        r"^\W*(?:sure|certainly|of course|absolutely|yes|here(?:'s| is| are)|definitely|great)\b",
        r"^\W*to [a-z]+ (?:a|an|the|your|this|someone)\b",
        r"\b(?:I|we|you)(?:'ll| will| should| need to| have to| can| could| must| would)\b",
        r"\bI (?:find|get|list|plan|write|take|make|go|think|know|remember|guess|recall|imagine|suppose|"
        r"start|begin)\b",
        r"\bwhat (?:exactly )?(?:is|are|does|makes|would|do)\b",
        r"\b(?:usually|typically|generally|often)\b",
        r"\blet(?: me|'s)\b",
        r"\bI've (?:heard|seen|read)\b",
        r"\bhow (?:do|does|can|could|would|might) \w+\b",
    ),
    re.IGNORECASE,
)
