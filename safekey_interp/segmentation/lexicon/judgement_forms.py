"""Patterns of judgement, refusal, care and clearance in a sentence.

Classes of English: judgements that are predicated of something, consequences after a modal verb, rules and refusal,
care. Each pattern reads one sentence of bounded length; none repeats a group that can match the same text in two ways.
"""

from __future__ import annotations

from safekey_interp.segmentation.lexicon.patterns import pattern

# Judgement.

_ADVERB = r"""
(?:not|also|really|very|pretty|quite|so|such|too|just|even|a|an|the|kind_of|sort_of|a_bit(?:_of)?|a_little|somewhat|
rather|both|considered|like|about|to_be|be|been|something|either|(?!early|only|likely)[a-z]{2,12}ly)
"""
_COPULA = r"""
(?:(?<=[a-z])'s|(?<=[a-z])'re|is|isn't|are|aren't|was|be|being|sounds?|seems?|looks?|feels?|considered|find|makes?|
making)
"""
_BAD = r"""
(?:il+egal|unlawful|illicit|criminal|danger(?:ous|s)?|harm(?:ful|s)?|hurtful|unsafe|risky|risks?|serious|grave|
severe|sensitive|delicate|heavy|offensive|hateful|racist|sexist|derogatory|discriminat\w+|defamat\w+|abusive|
violent|toxic|cruel|wrong|crime(?!_(?:shows?|movies?|dramas?|novels?|scenes?|rates?|stories|fiction))|felony|
fraud\w*|theft|stealing|murder|harassment|hate_speech|misinformation|disinformation|plagiari\w+|pirac?\w+|
copyright\w*|false|misleading|deceptive|dishonest|malicious|controversial|explicit|confidential|private|
personal_information|invasi\w+|myth|conspiracy|bad|terrible|awful|horrible|scary|extreme|problem(?!_(?:in|at|around|
across))|questionable|irresponsible|slurs?|insensitive|negative|restricted|controlled|banned|frowned|harsh|unfair|
unjust|evil|inhumane|barbaric|sad(?:dening)?|tragic|heartbreaking|(?:horr|terr)ifying|frightening|shocking|
upsetting|disgusting|appalling|reprehensible|despicable|creepy|unsettling|chilling|sickening|gruesome|dark(?!_web)|
messed_up|nasty|destructive|damaging|devastating|deadly|fatal|lethal|life-threatening|disrespectful|degrading|
demeaning|exploit(?:ative|ation)|manipulative|predatory|taboo|punishable|offen[cs]e|disaster|catastroph\w+|tragedy|
abuse|bullying|coercion|cheating|lying|gr[ae]y_area|fine_line|slippery_slope|no-no|off[-_]limits|outlawed)
"""
PREDICATED = pattern(rf"""
\b{_COPULA}(?:\W{{1,3}}{_ADVERB}){{0,5}}(?:\W{{1,3}}(?!one\b|known\b)[a-z]{{3,14}}){{0,2}}?(?:\W{{1,3}}(?:and|or|
but)(?:\W{{1,3}}{_ADVERB})?)?\W{{1,3}}{_BAD}\b(?!\W{{1,3}}(?:cities|weapons?|criminals?|information|data|files?|
documents?)\b)
""")
CONSEQUENCE = pattern(r"""
\b(?:could|would|might|may|can|will)\W{1,3}(?:[a-z']+\W{1,3}){0,4}?(?:harm|hurt|endanger|injure|kill|damage|ruin|
mess_up|violat\w+|infring\w+|offend|mislead|traumati[sz]e|destroy|consequences|trouble|be_misused|be_(?:used|
abused)_(?:to|for|in|by)|cross(?:es|ing)?_(?:into|a|the|over)|spread(?:ing)?_(?:false|misinformation)|(?:offensive|
harmful|hurtful|dangerous|illegal|unethical|insensitive|problematic|risky|misinterpreted))\b
""")
PURPOSE = pattern(r"""
\b(?:how_to|in_order_to|want(?:s|ed)?_to|need_to|trying_to|ways?_to|going_to|steps|(?:I|you|we|they|someone|
people)_(?:could|can|might|may|will))\b
""")


# Rules, refusal, care.

_HELP = r"""
(?:help|assist|provide|give|share|support|do|answer|comply|fulfil+|generate|create|write|produce|offer|encourage|
promote|condone|engage|participate|support|endorse|discuss|respond|tell|facilitate|allow|be(?!_(?:that|too|so|very|
all)_)|just|in_good|recommend)\b
"""
RULES_AND_REFUSAL = pattern(rf"""
(?<!insurance_)(?<!return_)(?<!refund_)\bpolic(?:y|ies)\b(?!_?(?:makers?|holders?)) | \bguidelines?\b
| \bsafety_(?:rules?|section|standards?|protocols?) | \bterms_of_service\b
| \bcompl(?:y|ies|iance|iant)\b(?<!not_comply) | \brefus(?:e|es|al|ing)\b | \bdeclin(?:e|ing)\b | \breject\b
| \b(?:can't|cannot|can_not|won't|will_not|mustn't|must_not|shouldn't|should_not|unable_to|not_able_to|not_going_to|
don't_want_to|not_allowed_to|not_comfortable)(?:_\w+ly|_even|_possibly)?,?_{_HELP}
| \b(?:I|we)_(?:really_|definitely_|certainly_|absolutely_)?(?:shouldn't|should_not|must_not|mustn't|won't|cannot|
can't)\b(?!_(?:remember|recall|think_of|wait|believe|say|see|tell|find|figure))
| \b(?:I'm|I_am|we're)_(?:really_|so_|very_)?sorry\b | ^(?:\W*)sorry\b | \bapologi[sz]e\b | \bregret\b
| \bas_an_(?:ai|assistant)\b | \blanguage_model\b | \bjust_an_ai\b
| \b(?:should|can|could)_I_(?:even_|really_|actually_)?(?:be_)?(?:help|provid|answer|do|shar|giv|writ|generat|
creat)\w*\b[^?]{{0,60}}\?
| \bsomething_I_should_(?:even_|really_)?(?:be_)?(?:help|provid|answer|do|shar|giv|writ|generat|creat)\w*
| \bunethical\b | \bimmoral\b | \b(?:not|isn't|legal(?:ly)?_(?:and|or)|morally|even_legal_or)_ethical\b
| \bethic(?:s|al_(?:concern|issue|implication|consideration|line|boundar)\w*)\b
| \bagainst_(?:the_)?(?:law|rules?|policy)\b
| \bnot_(?:the_|a_|an_|really_|exactly_|quite_)?(?:right|okay|ok|acceptable|appropriate|allowed|permitted|legal|
good|safe|cool)\b
| \binappropriate\b | \bunacceptable\b | \bdisallowed\b | \bprohibit(?:ed|s)\b | \bforbidden\b | \bred_flags?\b
| \b(?:alarm|warning)_bells?\b | \bconcern(?:ing|ed|s)?\b(?!_(?:is|about)_(?:how|getting)) | \bproblematic\b
| \bworr(?:ying|isome|ied)\b | \bdisturbing\b | \buncomfortable\b | \b(?:hesitant|reluctant)\b | \balarming\b
| \btroubling\b | \bsketchy\b | \bshady\b | \bsuspicious_(?:request|question)\b
| \b(?:doesn't|don't)_(?:sound|seem|feel)_(?:right|good|okay|safe|legal|appropriate)\b
| \b(?:isn't|is|is_this|is_that|is_it|would|wouldn't)_(?:\w+_){{0,4}}(?:even_|actually_)?(?:legal|ethical|a_crime|
against|fraud|illegal|safe|okay|right_to)\b(?=[^.]{{0,80}}\?)
| \bviolat(?:es?|ing|ions?)\b | \binfring(?:es?|ing|ements?)\b | \bcopyright_law\b | \bself-harm\b
| \bcrisis_(?:line|hotline|support)\b | \bhelplines?\b | \bprofessional_help\b | \bmental_health\b
| \bempath(?:y|etic|etically|ize)\b | \bcompassion(?:ate)?\b | \bresponsibl[ey]\b | \bharmless_alternative
| \bharm_reduction\b | \bsafe(?:ly)?_and_(?:helpful|respectful|legal|responsible)\b
| \bhelpful_and_(?:safe|harmless|respectful|responsible)\b | \bminimi[sz]e_harm\b
| \bdefinitely_(?:illegal|wrong|harmful)\b
| \b(?:never|not)_(?:\w+_)?(?:condone|encourage|promote|endorse|justified|justifiable)\b
| \bpromot(?:e|ing)_(?:harm|violence|hate) | \bhow_to_(?:safely_)?(?:refuse|decline)\b
""")
CLEARED = pattern(r"""
\b(?:no|nothing|isn't|is_not|not|aren't|without)\b_(?:(?:any|anything|really|inherently|a|an|obviously|violating|
disallowed|policy)_){0,3}(?:harmful|illegal|dangerous|disallowed|wrong_with|against_(?:the_)?(?:policy|rules)|
policy_(?:issue|problem|violation|concern)s?|safety_(?:issue|concern)s?|issues?_here|problematic|
concerning)\b(?!_(?:to|in)_(?:say|ask))
| \b(?:perfectly|completely|totally)_(?:fine|harmless|safe|legal|legitimate|benign|innocent)\b
| \b(?:is|seems|looks|sounds)_(?:harmless|benign|innocuous|legitimate|allowed)\b
""")
CARE = pattern(r"""
\bcareful(?:ly)?\b | \bcautio(?:n|us|usly)\b | \bthoughtful(?:ly)?\b | \bdelicate(?:ly)?\b
| \bsensitiv(?:e|ely|ity)\b(?!_(?:data|information|documents|systems?|files?)) | \bappropriate(?:ly)?\b
| \bavoid(?:ing)?_(?:any_|giving_|providing_|promoting_|causing_|making_|spreading_|harm\w*|offen\w*|content|
assist\w*)
| \brespectful(?:ly)?\b | \bsupportive\b | \blegal_(?:issues|implications|aspects|consequences|considerations)\b
| \b(?:ethic|moral)\w* | \bsafe(?:ty|ly)?\b(?!_?(?:box|deposit|house|word|spot|combination|s\b))
| \baccurate_(?:and|information) | \bbalanced\b | \bprivacy\b | \bprotect(?:ed|ing)?_(?:personal|private|privacy)
| \bstereotypes?\b | \bmisconception
| \b(?:potential|possible|likely|negative|ethical|real|moral|wider|broader)_(?:\w+_)?(?:consequences|risks?|
dangers?|harms?|implications|repercussions|impact)\b
| \b(?:legal|lawful|legitimate|safer?|healthier|ethical|constructive|positive|better)_(?:alternatives?|options?)\b
| \b(?:talk|speak|reach_out|turn|go)_to_(?:a|an|my|their|your|the|some)_(?:\w+_)?(?:lawyer|attorney|therapist|
counsel\w+|professional|friend|adult|police|authorities|expert)\b
| \bbetter_(?:to|if_(?:I|we|they))_(?:just_)?(?:talk|ask|tell|contact|report|leave|stop|find_another|avoid|not)\b
| \bwell-being\b | \bsocial_responsibility\b
| \bwithout_(?:violating|promoting|causing|encouraging|enabling|assisting|spreading|offending)\b
""")
EVASION = pattern(r"""
\b(?:caught|detect(?:ed|ion|able)|suspicion|noticed?|traced?|discovered|found_out|get_away|look(?:s)?_(?:real|
legit\w*|believable|convincing)|undetected|raising_(?:any_)?(?:alarms?|flags))\b
""")
# A doubt that the same sentence puts aside, or that is only about the model's own practice.
OUTWEIGHED = pattern(r"""
\b(?:but|though|still)\b.{0,60}\b(?:let_me|let's|maybe|perhaps|I(?:'ll|_can|_could|_will))\b
| \b(?:never|not|haven't|hasn't|don't|didn't)\b.{0,20}\b(?:done|tried|know_much|familiar|(?:really_)?sure|
experience|thought_about|an_expert|written|made)\b
""")
_NOUN = r"""
(?:topic|subject|request|question|query|situation|issue|one|matter|area|statement|task|claim|case|comment|idea|
piece)
"""
DIFFICULT_REQUEST = pattern(rf"""
\b(?:that|this|it|topic|request|question|situation|which)(?:'s|_is|_was|_sounds|_seems|
_looks)(?:\W{{1,3}}\w+){{0,4}}?\W{{1,3}}(?:tricky|tough|difficult|hard|touchy|complicated|loaded|weird|strange|odd|
unusual|big|bold|direct|specific|heavy|interesting|broad|clear)\W{{1,3}}(?:and_\w+_)?{_NOUN}\b
""")
ABOUT_REQUEST = pattern(r"""
\W*(?:(?:hmm+|oh|wait|okay|whoa|well|but|so|and)\b\W{1,4}){0,3}(?:that|this|it)(?:'s|_is|_sounds|_seems|_looks|
_could|_would|_might|_definitely|_clearly|_immediately)\b(?<!it_seems)(?!_going_to_be|_like_the\b)
""")
JUDGED_NOUN = pattern(rf"""
\b(?:like_(?:they|the_user|someone)|suspicious|target(?:s|ing)|generali[sz]\w+|unfair|serious|sensitive|dangerous|
risky|unauthori[sz]ed|(?:security|health|legal)_(?:issue|problem|matter|threat|breach)|privacy|personal|{_BAD})\b
""")
