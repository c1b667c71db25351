"""Which forms of words react to harm without naming a rule? Patterns for
:mod:`~safekey_interp.segmentation.sentence_classes`.

Four classes of English: dissent ("I don't agree", "it doesn't sit right with me"), a question to one's conscience ("is
that even honest?"), fear of the law ("you could end up in jail") and pity for whoever is hurt ("someone could be
injured"). A fear that is only of being found out ("without ending up in jail") is none of them.
"""

from __future__ import annotations

import re

from safekey_interp.segmentation.lexicon.harm_words import any_of

_VERY = (
    r"(?:(?:really|very|quite|pretty|so|too|at all|just|even|entirely|completely|fully|totally|exactly|a bit|a little|"
    r"kind of|sort of|somewhat|rather|\w+ly) ){0,3}"
)
# Good of an act; a good tool, place or moment for it is no judgement.
_GOOD = (
    r"(?:good|right|okay|ok|fine|fair|great|nice|kind|cool|honest|legit|legal|lawful|ethical|moral|safe|wise|smart|"
    r"responsible|acceptable|appropriate|allowed|permitted|justified|proper|healthy|"
    r"the (?:right|best|smartest) (?:thing|idea))\b(?! (?:enough|of|(?:starting )?(?:ways?|place|time|moment|point|"
    r"spot|"
    r"methods?|tools?|options?|choice|approach|example|amount|format|word|tone|kind|site|website|source|app|software)))"
)
_DOUBTED = rf"(?:[\w']+ ){{0,4}}(?:{_GOOD}|something I|(?:I|we|anyone|people|someone) should\b)"
DISSENT = re.compile(
    any_of(
        rf"\bI {_VERY}(?:don't|do not|can't|cannot|wouldn't|never) {_VERY}(?:agree|support|condone|believe in|approve|"
        r"endorse|"
        rf"believe (?:any|some|people|that any|this|it)|like (?:this|that|the (?:idea|sound)|where|how)|"
        rf"feel {_VERY}(?:good|right|comfortable|great|okay|ok|easy)|"
        rf"think {_DOUBTED}|"
        r"want (?:to|any part|anyone|anybody|people|him|her|them|no)(?! (?:to )?(?:be |get |getting )?(?:caught|find|"
        r"finding|notic\w*|detect\w*|know|see|suspect|look|come|end up with|miss|make it|make this|sound|forget|"
        r"overdo|waste|leave|raise|draw|attract))\b)",
        r"\bI (?:really |just |do )?hope\b[^.?!]{0,60}(?:\b(?:not|no one|nobody|safe|okay|joking|kidding|help)|n't)\b",
        rf"\bI(?:'m| am) (?:not|far from) {_VERY}(?:comfortable|okay with|ok with|happy (?:about|with|to)|at ease|"
        r"proud|"
        r"a (?:big )?fan|on board|keen|supposed|willing|going to (?:help|write|do (?:this|that|it)))",
        rf"\b(?:I'm|I am|I feel|feels?|feeling|makes me|makes me feel|left me) {_VERY}(?:uneas[ey]|guilty|torn|"
        r"conflicted|"
        r"queasy|ashamed|disgusted|horrified|appalled|shocked|saddened|sick(?:ened)?|scared|uncomfortable|"
        r"troubled|disturbed|nervous|anxious|wary|skeptical|hesitant|reluctant|apprehensive|icky|gross|wrong|off|"
        r"morally)\b(?! about (?:the (?:dose|dosage|price)|getting caught|being caught))",
        r"\b(?:mixed feelings|second thoughts|qualms|moral dilemma|my conscience|my (?:moral|personal) (?:values|"
        r"compass)|"
        r"(?:doesn't|does not|don't|didn't) sit (?:right|well)|rubs me the wrong way|gives? me pause|taken aback|"
        r"gives? me (?:the )?(?:chills|creeps|shivers)|makes my (?:skin|stomach)|struggl\w+ with (?:this|that|"
        r"the (?:idea|thought))|"
        r"goes against|went against|alarm bells)\b",
        rf"\bnot {_VERY}sure (?:(?:if|whether|that|about) )?(?:(?:I|we) (?:really )?(?:should|want to)\b(?! (?:use|"
        r"start|"
        r"begin|go with|pick|choose|look|include|focus))|(?:I|we|this|that|it)(?:'m| am|'s| is|"
        rf" would be)? {_DOUBTED})",
        rf"\bI (?:also |do )?(?:know|realize|understand|get|think|feel|believe)(?: that)? [^.?!]{{0,60}}(?:\bnot|"
        rf"n't) {_VERY}{_GOOD}\b",
    ),
    re.IGNORECASE,
)
CONSCIENCE = re.compile(
    r"\b(?:is|isn't) (?:this|that|it) (?:even |really )?something (?:I|we|people|anyone)\b[^?]{0,60}\?|"
    rf"\bI wonder (?:if|whether) [^.?!]{{0,40}}?\b{_GOOD}|"
    r"n't (?:really |very |so |at all )?(?:cool|okay|ok|right|fair|kind|nice|honest|legal|ethical|moral|wise|"
    r"acceptable|"
    r"appropriate|justified|healthy)\b(?! (?:of|away|now|there|place|way|time|tool|one)\b)|"
    r"\b(?:is|isn't|are|aren't|was|would|wouldn't|am|does|doesn't) (?:not )?(?:that|this|it|these|those|I|we|such|"
    r"doing)"
    rf"\b[^?]{{0,60}}\b(?:{_GOOD}|crime|fraud|criminal|il+egal|unlawful|wrong|bad|mean|cruel|harmful|dangerous|risky|"
    r"cheating|stealing|"
    r"lying|unfair|unethical|immoral|(?:against|break\w*|violat\w*) (?:the |any |some )?(?:law|rules?|terms)|arrested|"
    r"(?:in|into) trouble|"
    r"consequences|hurt (?:anyone|someone|people|him|her|them|somebody))\b[^?]{0,60}\?",
    re.IGNORECASE,
)
LEGAL_WORRY = re.compile(
    any_of(
        r"\b(?:arrested|prosecuted|sued|expelled|jailed|imprisoned|indicted|convicted|deported)\b",
        r"\b(?:in|to|into|of) (?:jail|prison|handcuffs|(?:some |a lot of |big |serious |real |deep |legal |"
        r"huge )*trouble)\b",
        r"\b(?:behind bars|(?:jail|prison) (?:time|sentences?)|criminal (?:record|charges|offen[cs]e)|felony|"
        r"misdemeanou?r|"
        r"federal (?:crime|offen[cs]e)|(?:heavy|hefty|huge|steep|stiff) (?:fines?|penalt\w+)|life sentence|"
        r"death penalty)\b",
        r"\b(?:severe|serious|legal|harsh|strict|stiff|criminal|grave) (?:legal |criminal )?(?:penalt\w+|punishments?|"
        r"consequences|repercussions|"
        r"ramifications|trouble|charges|offen[cs]es?)\b",
        r"\b(?:protected|banned|outlawed|restricted|prohibited|punish(?:ed|able)|forbidden|regulated) (?:by|"
        r"under) (?:\w+ ){0,2}laws?\b",
        r"\blaws? (?:against|prohibit\w*|forbid\w*|that (?:prohibit|protect|ban|forbid)\w*|protecting)\b",
        r"\bschedule (?:I{1,3}|[123]|one|two)\b|\bcontrolled substances?\b",
        r"\b(?:breaking|breaks|against) (?:the |federal |state |international )?law\b",
    ),
    re.IGNORECASE,
)
SHUNNED = re.compile(
    r"\b(?:avoid\w*|without|evad\w+|escap\w+|not(?! want)|never|keep\w*|instead of|out of|from|beat(?:ing)?|"
    r"risk(?:ing)? of|get away)\b"
    r"(?: [\w']+){0,3} \Z",
    re.IGNORECASE,
)
"""What comes before a danger of the law that is only to be dodged."""

_HURT = (
    r"(?:hurt|injured|killed|harmed|traumati[sz]ed|victimi[sz]ed|endangered|exploited|scarred|maimed|poisoned|burned|"
    r"devastated|sick|seriously ill|very ill)"
)
_WEAK = (
    r"(?:people|persons?|someone|anyone|somebody|everyone|others|children|kids|teens|students|families|women|men|"
    r"animals|"
    r"lives|life|communit\w+|society|victims?|the (?:environment|public|planet)|mental health|self-esteem|democracy|"
    r"trust)"
)
PITY = re.compile(
    any_of(
        rf"\b(?:could|might|may|can|would|will) (?:\w+ ){{0,2}}?(?:get|be|end up|become|wind up) (?:\w+ly |really |"
        rf"very |badly )?{_HURT}\b",
        r"\b(?:could|might|may|can|would|will) (?:\w+ )?(?:die|suffer|cost lives|lose (?:everything|their|his|her))\b",
        r"\b(?:ruins|destroys|hurts|harms|endangers|kills|devastates|exploits|victimi[sz]es|dehumani[sz]es|degrades|"
        r"damages|"
        rf"undermines|costs) (?:[\w']+ ){{0,3}}?{_WEAK}\b",
        r"\bcauses? (?:\w+ ){0,4}(?:harm|distress|suffering|pain|trauma|damage|panic)\b",
        r"\b(?:lives (?:depend|are)|at stake|in danger|(?:no one|nobody|no \w+) (?:should (?:ever |have to )|deserves)|"
        r"(?:is|are|'s) (?:a|such a|quite a|kind of a) (?:really |very |pretty )?big deal)\b",
        r"\binnocent (?!look|seem)\w+",
        r"\A\W*(?:oh,? |man,? |wow,? )*(?:the |that |those )?poor (?!\w+ing\b)\w+\W*\Z",
        r"\b(?:lead|leads|result|results) (?:directly )?(?:to|in) (?:\w+ ){0,3}(?:violence|injur\w+|deaths?|harm|"
        r"addiction|overdose|"
        r"suicide|abuse|damage|problems|trauma|loss|hatred|discrimination|consequences)\b",
        r"\b(?:bad|terrible|horrible|awful) (?:idea|thing to)\b",
        r"\b(?:line|lines) (?:that )?(?:shouldn't|should not|must not) be crossed|\bcross\w* (?:a|the|"
        r"some) (?:\w+ )?lines?\b",
        r"\b(?:recipe for (?:disaster|trouble|prison)|play\w* with fire|not (?:a joke|something to (?:joke|"
        r"be taken lightly|take lightly|mess with))|"
        r"(?<=n't )something to (?:joke|take lightly|be taken lightly|mess with)|no laughing matter|no joke|"
        r"go(?:es)? (?:very |horribly |terribly )?wrong)\b",
        r"\b(?:side effects|health risks|risks? (?:of|involved)|dangers? of|addictive)\b",
    ),
    re.IGNORECASE,
)
