"""Patterns of compliance and deliberation in a sentence.

Whoever answers a user and whoever does a task begin in different words; deliberation ("let me think about how to
approach this") is neither compliance nor care.
"""

from __future__ import annotations

from safekey_interp.segmentation.lexicon.patterns import pattern

MOTIVE = pattern(r"""
\bwhy_(?:(?:would|do|does|might|are|is)_)?(?:someone|somebody|anyone|anybody|people|they|the_user|
a_person)\b.{0,40}\b(?:want|ask|do|need|interested)\b
| \bwhat_(?:would|could|might)_(?:make|drive|lead|cause|motivate)_(?:someone|somebody|anyone|people|a_person|them)\b
""")
"""Wondering what moves whoever wants it."""

ANSWERING = pattern(r"""
\b(?:(?:the|this|our)_user|user's_(?:request|question|query|prompt|message)|(?<!what_)they(?:'re|_are|_want|_ask)|
asks|asked|ask(?:ing)?(?:_me|_for|_about|_how|_if|_whether|_what|_where|_why|_when|_who|_which|_to\b|,|:)|wants?_me|
you(?:'re|_are)_asking|respond(?:ing)?|reply|request|query|someone_(?:who|says)|help_(?:someone|the|them))\b
""")
_ACTOR = r"(?:I|you|we|one|someone|somebody|people)"
_ABLE = r"(?:can|could|might|would)"
# What, which or the … that someone could use asks for means, not for an explanation.
EXPLAINING = pattern(rf"""
\W*(?:(?:okay|alright|so|well)\b\W{{1,4}}){{0,2}}I(?:'m|_am)?_(?:need_to|have_to|want_to|trying_to|
should)_(?:figure_out_|understand_|find_out_|know_|determine_|explain_|analy[sz]e_|compare_|describe_|outline_|
define_|discuss_)+(?:why|when|whether|if|how_\w+_(?:works?|is|are|does|combats?)|(?:what|which|the|where(?!_(?:to|
is|I|we)\b))\b(?![^.?!]{{0,60}}\b(?:{_ABLE}_(?:{_ACTOR}|be)|{_ACTOR}_{_ABLE})\b))\b(?!_someone|_I_could|
.{{0,30}}\bways?_to)
""")
SUSPECTS = pattern(r"""
\W*(?:(?:hmm+|oh|wait|okay|well|but|so|maybe|perhaps)\b\W{1,4}){0,3}(?:they|the_user|he|she|this_person)(?:'re|_are|
_could|_might|_may|_seems?|_must)\b
""")
CAREFUL_PLAN = pattern(r"""
\b(?:I|we)(?:'ll|'d_better|_should|_need_to|_must|_have_to|_want_to|'m_going_to)(?:_\w+ly|_also|_first|
_definitely)?_(?:acknowledge|assess|consider|recogni[sz]e|check|address|make_sure|ensure|remember|recall|
determine_(?:if|whether)|evaluate|validate|verify|clarify|emphasi[sz]e|respond|look_at|weigh|keep_in_mind|
be_(?:clear|honest|mindful))\b
| \bmy_(?:goal|priority|first_thought|response)\b
""")
DELIBERATION = pattern(r"""
\W*(?:(?:hmm+|okay|alright|so|well|first)\b\W{1,4}){0,3}(?:let_me|let's|I_need_to|I_should|I_have_to|
I'll)_(?:(?:start|begin)_by_)?(?:think|thinking|break|breaking|see|go|approach|understand|understanding|figure|
figuring|process|parse|read|look|unpack|consider|recall|recalling)\b
""")
ABOUT_ASKER = pattern(r"""
\b(?:they|them|their|he|she|users?|users?'s?|asker|request|question|query|respond\w*|response|answer\w*|reply|topic|
statement|claim|why|whether|address)\b
""")
"""What someone who answers says of the one who asked, or of the answer, rather than of the task."""
COMPLIANT_OPENING = pattern(r"\W*(?:sure|certainly|of_course|absolutely|here(?:'s|_is|_are)|to_[a-z]+)\b")
COMPLIANCE = pattern(r"""
\b(?:where|how)_(?:do|should|would|can|to)\b.{0,12}\b(?:start|begin|approach|go_about)\b
| \b(?:start|begin|kick_off)_(?:by|with|off)\b | \bfirst(?:ly|_off|_of_all|_thing|_step)?\b
| \bstep_(?:one|1|by_step)\b | \b(?:maybe|perhaps)\b
| \b(?:one|another|the_best|a_good|some|possible)_(?:ways?|methods?|approach|options?|ideas?|strateg\w+)\b
| \b(?:could|might|can)_(?:be|use|try|involve|include|work|do|make|start)\b
| \bthere_(?:are|might_be|must_be|could_be)_(?:\w+_){0,3}ways?\b
| ^\W*(?:sure|certainly|of_course|absolutely|yes|here(?:'s|_is|_are)|definitely|great)\b
| ^\W*to_[a-z]+_(?:a|an|the|your|this|someone)\b
| \b(?:I|we|you)(?:'ll|_will|_should|_need_to|_have_to|_can|_could|_must|_would)\b
| \bI_(?:find|get|list|plan|write|take|make|go|think|know|remember|guess|recall|imagine|suppose|start|begin)\b
| \bwhat_(?:exactly_)?(?:is|are|does|makes|would|do)\b | \b(?:usually|typically|generally|often)\b
| \blet(?:_me|'s)\b | \bI've_(?:heard|seen|read)\b | \bhow_(?:do|does|can|could|would|might)_\w+\b
""")
