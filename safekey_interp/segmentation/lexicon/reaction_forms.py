"""Patterns of reactions to harm that name no rule: dissent, conscience, fear of the law, pity.

Examples: "it doesn't sit right with me", "is that even honest?", "you could end up in jail", "someone could be
injured". A fear that is only of being found out ("without ending up in jail") is none of them.
"""

from __future__ import annotations

from safekey_interp.segmentation.lexicon.patterns import pattern

_VERY = r"""
(?:(?:really|very|quite|pretty|so|too|at_all|just|even|entirely|completely|fully|totally|exactly|a_bit|a_little|
kind_of|sort_of|somewhat|rather|\w+ly)_){0,3}
"""
# Good of an act; a good tool, place or moment for it is no judgement.
_GOOD = r"""
(?:good|right|okay|ok|fine|fair|great|nice|kind|cool|honest|legit|legal|lawful|ethical|moral|safe|wise|smart|
responsible|acceptable|appropriate|allowed|permitted|justified|proper|healthy|the_(?:right|best|smartest)_(?:thing|
idea))\b(?!_(?:enough|of|(?:starting_)?(?:ways?|place|time|moment|point|spot|methods?|tools?|options?|choice|
approach|example|amount|format|word|tone|kind|site|website|source|app|software)))
"""
_DOUBTED = rf"(?:[\w']+_){{0,4}}(?:{_GOOD}|something_I|(?:I|we|anyone|people|someone)_should\b)"
DISSENT = pattern(rf"""
\bI_{_VERY}(?:don't|do_not|can't|cannot|wouldn't|never)_{_VERY}(?:agree|support|condone|believe_in|approve|endorse|
believe_(?:any|some|people|that_any|this|it)|like_(?:this|that|the_(?:idea|sound)|where|how)|feel_{_VERY}(?:good|
right|comfortable|great|okay|ok|easy)|think_{_DOUBTED}|want_(?:to|any_part|anyone|anybody|people|him|her|them|
no)(?!_(?:to_)?(?:be_|get_|getting_)?(?:caught|find|finding|notic\w*|detect\w*|know|see|suspect|look|come|
end_up_with|miss|make_it|make_this|sound|forget|overdo|waste|leave|raise|draw|attract))\b)
| \bI_(?:really_|just_|do_)?hope\b[^.?!]{{0,60}}(?:\b(?:not|no_one|nobody|safe|okay|joking|kidding|help)|n't)\b
| \bI(?:'m|_am)_(?:not|far_from)_{_VERY}(?:comfortable|okay_with|ok_with|happy_(?:about|with|to)|at_ease|proud|
a_(?:big_)?fan|on_board|keen|supposed|willing|going_to_(?:help|write|do_(?:this|that|it)))
| \b(?:I'm|I_am|I_feel|feels?|feeling|makes_me|makes_me_feel|left_me)_{_VERY}(?:uneas[ey]|guilty|torn|conflicted|
queasy|ashamed|disgusted|horrified|appalled|shocked|saddened|sick(?:ened)?|scared|uncomfortable|troubled|
disturbed|nervous|anxious|wary|skeptical|hesitant|reluctant|apprehensive|icky|gross|wrong|off|
morally)\b(?!_about_(?:the_(?:dose|dosage|price)|getting_caught|being_caught))
| \b(?:mixed_feelings|second_thoughts|qualms|moral_dilemma|my_conscience|my_(?:moral|personal)_(?:values|compass)|
(?:doesn't|does_not|don't|didn't)_sit_(?:right|well)|rubs_me_the_wrong_way|gives?_me_pause|taken_aback|
gives?_me_(?:the_)?(?:chills|creeps|shivers)|makes_my_(?:skin|stomach)|struggl\w+_with_(?:this|that|the_(?:idea|
thought))|goes_against|went_against|alarm_bells)\b
| \bnot_{_VERY}sure_(?:(?:if|whether|that|about)_)?(?:(?:I|we)_(?:really_)?(?:should|want_to)\b(?!_(?:use|start|
begin|go_with|pick|choose|look|include|focus))|(?:I|we|this|that|it)(?:'m|_am|'s|_is|_would_be)?_{_DOUBTED})
| \bI_(?:also_|do_)?(?:know|realize|understand|get|think|feel|believe)(?:_that)?_[^.?!]{{0,60}}(?:\bnot|
n't)_{_VERY}{_GOOD}\b
""")
CONSCIENCE = pattern(rf"""
\b(?:is|isn't)_(?:this|that|it)_(?:even_|really_)?something_(?:I|we|people|anyone)\b[^?]{{0,60}}\?
| \bI_wonder_(?:if|whether)_[^.?!]{{0,40}}?\b{_GOOD}
| n't_(?:really_|very_|so_|at_all_)?(?:cool|okay|ok|right|fair|kind|nice|honest|legal|ethical|moral|wise|acceptable|
appropriate|justified|healthy)\b(?!_(?:of|away|now|there|place|way|time|tool|one)\b)
| \b(?:is|isn't|are|aren't|was|would|wouldn't|am|does|doesn't)_(?:not_)?(?:that|this|it|these|those|I|we|such|
doing)\b[^?]{{0,60}}\b(?:{_GOOD}|crime|fraud|criminal|il+egal|unlawful|wrong|bad|mean|cruel|harmful|dangerous|
risky|cheating|stealing|lying|unfair|unethical|immoral|(?:against|break\w*|violat\w*)_(?:the_|any_|some_)?(?:law|
rules?|terms)|arrested|(?:in|into)_trouble|consequences|hurt_(?:anyone|someone|people|him|her|them|
somebody))\b[^?]{{0,60}}\?
""")
LEGAL_WORRY = pattern(r"""
\b(?:arrested|prosecuted|sued|expelled|jailed|imprisoned|indicted|convicted|deported)\b
| \b(?:in|to|into|of)_(?:jail|prison|handcuffs|(?:some_|a_lot_of_|big_|serious_|real_|deep_|legal_|huge_)*trouble)\b
| \b(?:behind_bars|(?:jail|prison)_(?:time|sentences?)|criminal_(?:record|charges|offen[cs]e)|felony|misdemeanou?r|
federal_(?:crime|offen[cs]e)|(?:heavy|hefty|huge|steep|stiff)_(?:fines?|penalt\w+)|life_sentence|death_penalty)\b
| \b(?:severe|serious|legal|harsh|strict|stiff|criminal|grave)_(?:legal_|criminal_)?(?:penalt\w+|punishments?|
consequences|repercussions|ramifications|trouble|charges|offen[cs]es?)\b
| \b(?:protected|banned|outlawed|restricted|prohibited|punish(?:ed|able)|forbidden|regulated)_(?:by|
under)_(?:\w+_){0,2}laws?\b
| \blaws?_(?:against|prohibit\w*|forbid\w*|that_(?:prohibit|protect|ban|forbid)\w*|protecting)\b
| \bschedule_(?:I{1,3}|[123]|one|two)\b | \bcontrolled_substances?\b
| \b(?:breaking|breaks|against)_(?:the_|federal_|state_|international_)?law\b
""")
SHUNNED = pattern(r"""
\b(?:avoid\w*|without|evad\w+|escap\w+|not(?!_want)|never|keep\w*|instead_of|out_of|from|beat(?:ing)?|
risk(?:ing)?_of|get_away)\b(?:_[\w']+){0,3}_\Z
""")
"""What comes before a danger of the law that is only to be dodged."""

_HURT = r"""
(?:hurt|injured|killed|harmed|traumati[sz]ed|victimi[sz]ed|endangered|exploited|scarred|maimed|poisoned|burned|
devastated|sick|seriously_ill|very_ill)
"""
_WEAK = r"""
(?:people|persons?|someone|anyone|somebody|everyone|others|children|kids|teens|students|families|women|men|animals|
lives|life|communit\w+|society|victims?|the_(?:environment|public|planet)|mental_health|self-esteem|democracy|trust)
"""
PITY = pattern(rf"""
\b(?:could|might|may|can|would|will)_(?:\w+_){{0,2}}?(?:get|be|end_up|become|wind_up)_(?:\w+ly_|really_|very_|
badly_)?{_HURT}\b
| \b(?:could|might|may|can|would|will)_(?:\w+_)?(?:die|suffer|cost_lives|lose_(?:everything|their|his|her))\b
| \b(?:ruins|destroys|hurts|harms|endangers|kills|devastates|exploits|victimi[sz]es|dehumani[sz]es|degrades|damages|
undermines|costs)_(?:[\w']+_){{0,3}}?{_WEAK}\b
| \bcauses?_(?:\w+_){{0,4}}(?:harm|distress|suffering|pain|trauma|damage|panic)\b
| \b(?:lives_(?:depend|are)|at_stake|in_danger|(?:no_one|nobody|no_\w+)_(?:should_(?:ever_|have_to_)|deserves)|
(?:is|are|'s)_(?:a|such_a|quite_a|kind_of_a)_(?:really_|very_|pretty_)?big_deal)\b
| \binnocent_(?!look|seem)\w+ | \A\W*(?:oh,?_|man,?_|wow,?_)*(?:the_|that_|those_)?poor_(?!\w+ing\b)\w+\W*\Z
| \b(?:lead|leads|result|results)_(?:directly_)?(?:to|in)_(?:\w+_){{0,3}}(?:violence|injur\w+|deaths?|harm|
addiction|overdose|suicide|abuse|damage|problems|trauma|loss|hatred|discrimination|consequences)\b
| \b(?:bad|terrible|horrible|awful)_(?:idea|thing_to)\b
| \b(?:line|lines)_(?:that_)?(?:shouldn't|should_not|must_not)_be_crossed
| \bcross\w*_(?:a|the|some)_(?:\w+_)?lines?\b
| \b(?:recipe_for_(?:disaster|trouble|prison)|play\w*_with_fire|not_(?:a_joke|something_to_(?:joke|be_taken_lightly|
take_lightly|mess_with))|(?<=n't_)something_to_(?:joke|take_lightly|be_taken_lightly|mess_with)|
no_laughing_matter|no_joke|go(?:es)?_(?:very_|horribly_|terribly_)?wrong)\b
| \b(?:side_effects|health_risks|risks?_(?:of|involved)|dangers?_of|addictive)\b
""")
