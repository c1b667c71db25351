"""Patterns of restatement: sentences that restate a request, decide about it, or announce a reading of it."""

from __future__ import annotations

from safekey_interp.segmentation.lexicon.patterns import pattern

_LEAD = r"""
(?:(?:okay|ok|alright|all_right|right|so|well|now|and|also|then|but|plus|additionally|furthermore|moreover|
specifically|basically|essentially|apparently|however|here|hmm+|ah|oh|in_other_words|on_top_of_that|it_(?:seems|
looks|sounds)_like|it_(?:seems|appears)_that|I_(?:see|think|guess|understand)(?:_that)?|wait|first(?:ly|_off|
_of_all)?|next|afterwards|meanwhile|in_particular|from_(?:the|their|this)_(?:prompt|query|question|request|message)|
based_on_(?:the|their|this)_(?:prompt|query|question|request|message))\b\W{0,4}){0,4}
"""
_PERSON = r"""
(?:(?:the|this|a|our)_(?:user|person|individual|questioner|asker|requester|customer|client|prompter)|user)(?:'s)?
"""
_PRONOUN = r"(?:they|he|she)"
_REQUEST = r"""
(?:(?:the|this|their|his|her|user's|user|whole|actual|main|real)_){1,3}(?:request|question|query|prompt|message|
instructions?|task|statement|scenario|situation|goal|aim|idea|purpose|intent(?:ion)?|objective|point|story|setting|
premise|context|catch|problem|claim|post|article|email|essay|script|review|friend|boss)
"""

ASKER_SUBJECT = pattern(rf"\W*{_LEAD}{_PERSON}\b")
PRONOUN_SUBJECT = pattern(rf"\W*{_LEAD}(?:{_PRONOUN}|their|his|her|both)\b")
ADVISES = pattern(rf"""
\W*{_LEAD}(?:{_PERSON}|{_PRONOUN})\W{{1,3}}(?:\w+ly_)?(?:should|can|could|would|will|need(?:s)?_to_(?:know|
understand|be|see)|shouldn't|can't|won't)\b
""")
REQUEST_SUBJECT = pattern(rf"""
\W*{_LEAD}{_REQUEST}(?:_here|_is_that|_in_question)?\W{{1,3}}(?:\w+ly_)?(?:is|was|seems|asks?|asking|wants?|says?|
mentions?|involves?|includes?|needs?|has|should|must|requires?|being|are|appears)\b
""")
THIS_IS_REQUEST = pattern(r"""
\W*(?:(?:so|okay|and|basically|essentially|now)\b\W{1,3}){0,2}(?:this|it)(?:'s|_is|_seems_to_be|_appears_to_be|
_means)(?:_(?:basically|essentially|just|like))?_(?:(?:a|an|about|the)_(?:\w+_)?(?:request|question|query|prompt|
task|instruction|scenario|role-?play)\b|about\b|asking\b|they\b|the_user\b|for_(?:a|an|the|their)\b)
""")
# Whoever acts in the plan; what the asker wants made is no agent.
_AGENT = r"""
(?:attacker|hacker|scammer|thief|criminal|perpetrator|killer|burglar|smuggler|person|people|victim|target|recipient|
police|authorities|law)s?\b
"""
NEEDS_TO_BE = pattern(rf"""
\W*{_LEAD}(?:it|this|they|these|those|the_(?!{_AGENT}|response|answer|reply|policy|policies|ai|key|best|main|first|
most|model|assistant)(?:(?!would|could|might|may)[\w'_-]){{2,30}}?)\W{{1,3}}(?:also_)?(?:needs?_to|should|has_to|
must|is_supposed_to|is_meant_to)\b
""")
OWN_TASK = pattern(rf"""
\W*{_LEAD}(?:I|we|my_(?:task|job|goal)_is_to|I'm|I_am)\W{{1,3}}(?:\w+ly_)?(?:need|have|want|am_asked|'ve_been_asked|
been_asked|trying|supposed|must|should)?(?:_to)?_?(?:figure_out|determine|work_out|decide|know|see|
find)?_?(?:on_)?(?:how|what|the_(?:best|right|proper|most_appropriate|best_possible)_(?:way|response|answer|
approach))(?:_(?:for|to_me))?_?(?:to_|I_should_|I_can_)?(?:best_)?(?:respond|answer|reply|say|address|handle|
deal_with|help|tackle|approach)?(?:_to|_with)?(?:_(?:this|that|it|them|the_user|their|user's|this_user|the|request|
query|question|the_user's|here)){{0,3}}[^\w]*\Z
""")
REPORTED_REQUEST = pattern(rf"""
\b(?:{_PERSON}|{_PRONOUN})(?:'re|'s|_is|_are)?_(?:\w+ly_|now_|also_|just_|then_|even_){{0,2}}(?:ask(?:s|ing|ed)?|
want(?:s|ing|ed)?|request(?:s|ing|ed)?|tell(?:s|ing))_(?:me|for|how|about|if|whether|to)\b
""")
MEANING = pattern(rf"""
\W*{_LEAD}(?:what|which|who|are|is|do|does|did|could|might|maybe|perhaps)\b[^?]{{0,80}}\b(?:they|the_user|he|she|
user)\b[^?]{{0,40}}\b(?:mean|means|meant|want|wants|ask|asks|asking|looking|referring|talking|trying|interested|
after)\b
""")
MOTIVE_QUESTION = pattern(rf"\W*{_LEAD}why\b")

# A clause that decides: rules, a verdict on the request, a plan drawn from it.
_RULES = r"""
(?:(?:safety|our|my|content|usage|openai|privacy|personal_data|misinformation|disinformation|self-harm|harassment|
behavior|property|(?<!non-)discrimination|relevant|adult|content|violence|harm)_(?:polic(?:y|ies)|guidelines?|
rules?|section)|\bthe_(?:safety_)?(?:policies|guidelines)\b|polic(?:y|ies)_(?:section|says?|mentions?|states?)|
against_(?:the_|my_|our_)?(?:rules|polic|law|guidelines))
"""
_VERDICT = r"""
(?:il+egal|unlawful|unethical|immoral|dangerous|harmful|wrong|inappropriate|concerning|problematic|worrying|
disturbing|troubling|alarming|sensitive|serious(?!_(?:about|injur\w*|illness))|risky|tricky|disallowed|prohibited|
not_(?:allowed|okay|ok|right|appropriate|ethical|legal|good)|a_(?:red_flag|crime|violation|big_no)|red_flags?|
hateful|discriminatory)
"""
DECIDES = pattern(rf"""
{_RULES}
| [,;—-]\W{{0,3}}(?:which|that|this)(?:_(?:is|are|was|could|would|might|may|can|be|also|clearly|definitely|seems?|
sounds?|looks?|immediately|really|very|pretty|a|an|both|potentially|considered|highly|quite|obviously|
all))*(?:_\w+_(?:and|or))?_(?:{_VERDICT}|falls?|violat\w+|goes_against|raises?|touch\w+_on)
| \b(?:is|are|seems?|sounds?|looks?|feels?)(?:_(?:clearly|definitely|very|really|pretty|quite|highly|potentially|
inherently|a_bit|likely|obviously|also|both|a|an))*_(?:{_VERDICT})(?!_(?:to|for)_(?:them|him|her|
their)\b)(?=\W*(?:\Z|[,.;!?]|and|or|because|since|as|request|question|topic|issue|subject|statement|matter|one))
| \brefus\w+ | \bfalls?_under\b | \bviolat(?:es|ing)\b | \bdisallowed\b
| \braises?\b.{{0,20}}\b(?:flags?|concerns?)\b
""")
# In the asker's own voice such a clause is part of the story ("…, so I can't take them back").
PLANS = pattern(r"""
[,;:—-]\W{0,3}(?:and|so|but|which_means)\W{1,2}(?:that_)?(?:I|we)(?:'ll|'m|_am)?(?:_\w+ly|_just|
_really)?_?(?:have_to|need_to|must|should|can't|cannot|will|shouldn't|won't|going_to|want_to_(?:make|be))\b
| \band_I_have_to\b | \b(?:I|we)_(?:must|should|cannot|can't|won't)\b
""")
# A plan that settles the outcome. A first sentence with one is K: nothing is left to decide after it.
RESOLVES = pattern(r"""
[,;:—-]\W{0,3}(?:(?:and|so|but|therefore|thus|hence)\W{1,2}){1,2}(?:that_)?(?:I|we)(?:'m|_am)?_(?:\w+ly_)?(?:must|
can't|cannot|won't|shouldn't|will_not|mustn't|(?:should|have_to|need_to|going_to|will)_(?:not|refuse|decline|reject|
warn))\b
| \b(?:I|we)(?:'ll|_will|_must|_should|_have_to|_need_to)_(?:\w+ly_)?(?:refuse|decline|not)\b
""")
TAKES_CARE = pattern(rf"""
{_RULES}
| \b(?:while|without|according|keeping|making_sure|ensur\w+|careful\w*|appropriately|safe\w*|responsib\w+|
respectful\w*|sensitive\w*|thoughtful\w*|in_a_way|adher\w+|complian\w+|complies|comply|ethical\w*|avoid\w*|given|
since|because)\b
""")

BRIDGE = pattern(rf"""
\W*{_LEAD}(?:let_me|let's|I_need_to|I_should|I'll|I_have_to|we_need_to|time_to)\W{{1,3}}(?:(?:start|begin)_(?:by|
with)_)?(?:first_)?(?:re-?read\w*|read\w*|look(?:ing)?_at|understand\w*|pars\w+|unpack\w*|break\w*|clarify\w*|see|
go(?:ing)?_(?:over|through)|make_sure_I_understand|summari[sz]\w+|think(?:ing)?(?:_(?:this|it)_through|
_about_(?:this|it))?)\b(?![^.]{{0,60}}\bpolic)[^.?!]{{0,110}}[.!:]*\W*\Z
""")
INTERJECTION = pattern(r"""
\W*(?:(?:hmm+|okay|ok|alright|all_right|right|so|well|wait|oh|ah|uh|um|huh|hm|whoa|wow|now|let's_see|let_me_see|
let_me_think|sure)\b\W*){1,3}\Z
""")

ASKER_VOICE = pattern(r"""
\b(?:I(?:'m|_am)_(?:thinking_(?:about|of)|planning|considering|having|feeling|going|in|at|a|an|the)|I_(?:own|
have_(?:this|a|an|been|my|some|these)|had|want|wanna|bought|got|live|work|feel|was|just|don't_have)|I've_(?:been|
got|had|always)|I'd_(?:like|love)|we_(?:have|own|are)|my_(?!understanding|knowledge|response|answer|goal|task|job|
mind|head|best|first|main)[a-z]+)\b
""")
ANSWERING_VOICE = pattern(r"""
\b(?:users?|they(?:'re|_are|_want|_ask)|asking|asks|asked_me|wants_me|respond|request|query|prompt|someone_(?:who|
says))\b
""")
ANYONE = pattern(r"\bhow_(?:someone|somebody|anyone|people|one|a_person)\b")
SET_TASK = pattern(r"\b(?:this|the|a)_(?:question|task|assignment|challenge|topic)\b")
THINKS = pattern(r"""
\W*(?:(?:but|and|so|well|okay|alright|now|then)\b\W{1,3}){0,2}(?:hmm+|wait|first|second|let_me|let's|maybe|perhaps|
i_(?:should|could|guess|think|know|remember|wonder|heard|recall|suppose|can|understand|believe|mean)\b|i'(?:ll|
ve_heard|ve_read|ve_seen|m_not_(?:sure|entirely))|i_need_to_(?:understand|think|start|know|consider|find|remember|
break|look|be_careful|make_sure|research|learn|gather|outline|identify|check|explore|approach|address|respond|
provide|ensure|analy[sz]e|come_up)|what|why|how|where|who|when|is|are|do|does|can|could|would|should|this_(?:is|
sounds|seems|could|might)|that(?:'s|_is|_sounds|_seems|_could|_would|_might)|one|there(?:'s|_is|_are)|from_what|
okay|to_(?:start|begin))\b
""")
WISH = pattern(r"""
\W*(?:(?:but|plus|also|and|so|now|then)\b\W{1,3}){0,2}I_(?:also_|just_|really_|only_)?(?:need|want|'d_like|
would_like|don't_want|hope|wish|plan|intend)_(?:it|this|that|them|these|those|the|my|people|everyone|someone|
others)\b
""")
GOAL_QUESTION = pattern(r"""
\W*(?:(?:hmm+|so|but|well|now|okay)\b\W{1,3}){0,2}(?:how|what|where)_(?:can|could|do|should|would|
might)_I_(?!(?:even_|possibly_|really_)?(?:start|begin|approach|go_about|do_(?:this|that|it)|proceed|tackle|handle|
respond|answer|say|help))(?:\S+_){4,}
""")

OWN_LIFE = pattern(rf"\b(?:I|me|my|mine|myself|we|us|our)\b | \A\W*{_LEAD}(?:it|he|she|they)\b")
WONDERS = pattern(r"""
\b(?:let_me|let's|maybe|perhaps|not_sure|I'd_(?:better|need|have)|I'll|I_(?:should|could|would|will|guess|wonder|
suppose)|no_(?:idea|clue)|my_(?:first|next|best)_(?:step|thought|instinct|guess|bet|idea|move)|(?:want|need|
have)_to_(?:think|learn|understand|find_out|research|be_careful|consider)|never|I_figure|(?:might|could)_be_(?:an?_|
the_)?(?:\w+_)?(?:option|way|idea|start|place)|the_(?:key|trick|first|best|easiest|main|next|hardest)_(?:is|thing|
step|way|part|place)|(?:bad|terrible)_idea|guilty|il+egal|nervous|worried|(?:don't|do_not)_(?:\w+ly_)?(?:know|
follow|understand|have_(?:any_|much_|a_lot_of_)?(?:experience|idea))|not_(?:\w+_)?(?:experienced|familiar|an?_\w+)|
heard|gr[ae]y_area)\b
""")

DECISION_OPENING = pattern(r"""
\W*(?:(?:hmm+|wait|oh|whoa|well|no)\b\W{1,3}){0,2}(?:(?:that|this)(?:'s|_is|_sounds|_seems)\b|first\b|firstly\b|
let_me\b|let's\b|sure\b|certainly\b|of_course\b|absolutely\b|here(?:'s|_is|_are)\b|to_(?:start|begin)\b|step_(?:1|
one)\b|I(?:'m|_am)_(?:so_|really_|very_)?(?:sorry|afraid|unable|not_able)|(?:I|we)_(?:really_)?(?:can't|cannot|
won't|will_not|must|mustn't|should|shouldn't|refuse|have_to_refuse|could|will)\b|I'll\b|sorry\b|no\b|as_an_ai\b|
unfortunately\b|we_(?:can't|cannot|must|should)\b)
""")
ADDRESSES_ASKER = pattern(r"""
\b(?:you(?:'re|_are)_(?:asking|looking|trying|requesting|interested|wondering|saying)|you_(?:want|asked|would_like|
'd_like|need|mentioned|said)|your_(?:question|request|query|message)|(?:sounds|seems|looks)_like_you|
understand_(?:that_)?you)
""")
FRAMES = pattern(rf"""
\W*{_LEAD}(?:I|I'm|I_am|I've|we|we're)\W{{1,3}}(?:\w+ly_|also_|just_|really_)?(?:need|have|want|'d_like|'ve_been|'m|
am|got|trying|going|thinking|supposed|asked|own|should|must|wonder|looking|curious|interested|planning|here)\b
""")
MENTIONS_REQUEST = pattern(r"\b(?:users?|they|request|query|question|asking|asks)\b")
