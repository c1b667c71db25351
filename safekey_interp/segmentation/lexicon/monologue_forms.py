"""Patterns of a text that thinks aloud rather than answers, and of where an answer begins after it."""

from __future__ import annotations

from safekey_interp.segmentation.lexicon.patterns import pattern

_LEAD = r"""
(?:(?:okay|ok|alright|all_right|right|hmm+|hm|well|so|now|wait|first(?:_off|ly|_of_all)?)\b\W{1,4}){0,4}
"""
_ANSWERS = r"""
(?:I(?:'m|_am)_(?:(?:really|so|very|truly|deeply)_)?sorry\b|sorry\b|I_apologi[sz]e\b|I(?:'m|_am)_(?:unable|not_able)\b|
I_(?:can't|cannot)_(?:\w+ly_)?(?:help|assist|provide|comply|fulfil)|sure\b|certainly\b|of_course\b|absolutely\b|
here(?:'s|_is|_are|_you)\b)
"""
ANSWERS = pattern(rf"\W*{_ANSWERS}")
"""A paragraph that turns to the asker: a plain refusal, or an agreement."""

# An interjection of thought; the asker in the third person; a task of one's own; an invitation to oneself.
_TO_THE_ASKER = r"(?:\w+_){0,2}(?:you|emphasi[sz]e|point|clarify|inform|remind|stress)\b"
OPENS_THOUGHT = pattern(rf"""
\W*(?:okay|ok|alright|all_right|hmm+|hm|wait)\b\W{{1,4}}(?!{_ANSWERS}|you\b|I'd_be|I_understand|thank)\S
| \W*{_LEAD}(?:(?:the|this|our)_user\b|user_(?:is|wants|asks|asked|says|requests?)\b)
| \W*{_LEAD}(?:they|he|she)(?:'re|_are|'s|_is)?_(?:ask|want)(?:s|ing|ed)?\b
| \W*{_LEAD}(?:I|we)(?:'m|_am|'ve|_have|'re|_are)?_(?:been_)?(?:need|trying|supposed|asked|tasked)_(?:to|
with)_(?!{_TO_THE_ASKER})
| \W*{_LEAD}(?:I|we)(?:'m|_am|'ve|_have|'re|_are|'ll|'d)?_(?:\w+ly_)?(?:(?:have|got|want|going)_to|should|must|will|
better|can)_(?:\w+ly_)?(?:first_|start_by_)?(?:figur|understand|think|determin|respond|answer|decid|consider|
com(?:e|ing)_up|handl|approach|writ|produc|creat|find|make_sure|check|recall|look_at|analy|break|refus|declin|comply|
see_|work_out|reply|craft|address)\w*
| \W*{_LEAD}let(?:_me|_us|'s)_(?:\w+ly_)?(?:first_|start_(?:by|with)_|try_to_|just_)?(?:think|see\b|break|start|analy|
consider|figur|understand|look|recall|go_(?:over|through)|pars|unpack|work|begin|read|re-?read|check|process|tackle|
explor)\w*
""")
THINKS_ON = pattern(r"""
\b(?:(?:the|this)_user|let_me(?!_know)|hmm+|I_(?:should|need_to|must|think|remember|recall|wonder|guess|also_need|
have_to)|I'll|they(?:'re|_are)_asking|maybe|wait)\b
| \b(?:the|my)_(?:response|answer|reply|best_approach)\b
| \A\W*(?:okay|alright|putting|next|first|also|finally|so|therefore|overall|(?:this|that)_(?:way|approach|should))\b
""")
"""A paragraph that still speaks of the asker, of the answer, or to oneself."""
ANSWER_HEADING = pattern(r"""
[#*_:>_\t]*(?:(?:my|the|final|suggested)_)*(?:answer|response|reply)(?:(?:\*\*|__):?|:(?:\*\*|__)?|(?=\n|\Z))
""")
"""A heading or label of the answer: "**Answer**", "Final answer:"."""
