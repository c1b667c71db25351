"""Which forms of words judge, refuse, take care, clear or go ahead? Patterns for
:mod:`safekey_interp.segmentation.sentence_classes`.

Classes of English: judgements that are predicated of something, consequences after a modal verb, rules and refusal,
care, beginning. Each pattern reads one sentence of bounded length; none repeats a group that can match the same text
in two ways.
"""

from __future__ import annotations

import re

from safekey_interp.segmentation.lexicon.harm_words import any_of

# Judgement.

_ADVERB = any_of(
    r"not",
    r"also",
    r"really",
    r"very",
    r"pretty",
    r"quite",
    r"so",
    r"such",
    r"too",
    r"just",
    r"even",
    r"a",
    r"an",
    r"the",
    r"kind of",
    r"sort of",
    r"a bit(?: of)?",
    r"a little",
    r"somewhat",
    r"rather",
    r"both",
    r"considered",
    r"like",
    r"about",
    r"to be",
    r"be",
    r"been",
    r"something",
    r"either",
    r"(?!early|only|likely)[a-z]{2,12}ly",
)
_COPULA = any_of(
    r"(?<=[a-z])'s",
    r"(?<=[a-z])'re",
    r"is",
    r"isn't",
    r"are",
    r"aren't",
    r"was",
    r"be",
    r"being",
    r"sounds?",
    r"seems?",
    r"looks?",
    r"feels?",
    r"considered",
    r"find",
    r"makes?",
    r"making",
)
_BAD = any_of(
    r"il+egal",
    r"unlawful",
    r"illicit",
    r"criminal",
    r"danger(?:ous|s)?",
    r"harm(?:ful|s)?",
    r"hurtful",
    r"unsafe",
    r"risky",
    r"risks?",
    r"serious",
    r"grave",
    r"severe",
    r"sensitive",
    r"delicate",
    r"heavy",
    r"offensive",
    r"hateful",
    r"racist",
    r"sexist",
    r"derogatory",
    r"discriminat\w+",
    r"defamat\w+",
    r"abusive",
    r"violent",
    r"toxic",
    r"cruel",
    r"wrong",
    r"crime(?! (?:shows?|movies?|dramas?|novels?|scenes?|rates?|stories|fiction))",
    r"felony",
    r"fraud\w*",
    r"theft",
    r"stealing",
    r"murder",
    r"harassment",
    r"hate speech",
    r"misinformation",
    r"disinformation",
    r"plagiari\w+",
    r"pirac?\w+",
    r"copyright\w*",
    r"false",
    r"misleading",
    r"deceptive",
    r"dishonest",
    r"malicious",
    r"controversial",
    r"explicit",
    r"confidential",
    r"private",
    r"personal information",
    r"invasi\w+",
    r"myth",
    r"conspiracy",
    r"bad",
    r"terrible",
    r"awful",
    r"horrible",
    r"scary",
    r"extreme",
    r"problem(?! (?:in|at|around|across))",
    r"questionable",
    r"irresponsible",
    r"slurs?",
    r"insensitive",
    r"negative",
    r"restricted",
    r"controlled",
    r"banned",
    r"frowned",
    r"harsh",
    r"unfair",
    r"unjust",
    r"evil",
    r"inhumane",
    r"barbaric",
    r"sad(?:dening)?",
    r"tragic",
    r"heartbreaking",
    r"(?:horr|terr)ifying",
    r"frightening",
    r"shocking",
    r"upsetting",
    r"disgusting",
    r"appalling",
    r"reprehensible",
    r"despicable",
    r"creepy",
    r"unsettling",
    r"chilling",
    r"sickening",
    r"gruesome",
    r"dark(?! web)",
    r"messed up",
    r"nasty",
    r"destructive",
    r"damaging",
    r"devastating",
    r"deadly",
    r"fatal",
    r"lethal",
    r"life-threatening",
    r"disrespectful",
    r"degrading",
    r"demeaning",
    r"exploit(?:ative|ation)",
    r"manipulative",
    r"predatory",
    r"taboo",
    r"punishable",
    r"offen[cs]e",
    r"disaster",
    r"catastroph\w+",
    r"tragedy",
    r"abuse",
    r"bullying",
    r"coercion",
    r"cheating",
    r"lying",
    r"gr[ae]y area",
    r"fine line",
    r"slippery slope",
    r"no-no",
    r"off[- ]limits",
    r"outlawed",
)
PREDICATED = re.compile(
    rf"\b{_COPULA}(?:\W{{1,3}}{_ADVERB}){{0,5}}(?:\W{{1,3}}(?!one\b|"
    rf"known\b)[a-z]{{3,14}}){{0,2}}?(?:\W{{1,3}}(?:and|or|"
    rf"but)(?:\W{{1,3}}{_ADVERB})?)?\W{{1,3}}{_BAD}\b(?!\W{{1,3}}(?:cities|weapons?|criminals?|"
    r"information|data|files?|documents?)\b)",
    re.IGNORECASE,
)
CONSEQUENCE = re.compile(
    r"\b(?:could|would|might|may|can|will)\W{1,3}(?:[a-z']+\W{1,3}){0,4}?"
    r"(?:harm|hurt|endanger|injure|kill|damage|ruin|mess up|violat\w+|infring\w+|offend|mislead|"
    r"traumati[sz]e|destroy|"
    r"consequences|trouble|be misused|be (?:used|abused) (?:to|for|in|by)|cross(?:es|ing)? (?:into|a|"
    r"the|over)|spread(?:ing)? (?:false|misinformation)|(?:offensive|harmful|hurtful|dangerous|illegal|"
    r"unethical|insensitive|problematic|risky|misinterpreted))\b",
    re.IGNORECASE,
)
PURPOSE = re.compile(
    r"\b(?:how to|in order to|want(?:s|ed)? to|need to|trying to|ways? to|going to|steps|(?:I|you|we|"
    r"they|someone|people) (?:could|can|might|may|will))\b",
    re.IGNORECASE,
)


# Rules, refusal, care.

_HELP = (
    r"(?:help|assist|provide|give|share|support|do|answer|comply|fulfil+|generate|create|write|produce|"
    r"offer|encourage|promote|"
    r"condone|engage|participate|support|endorse|discuss|respond|tell|facilitate|allow|be(?! (?:that|too|so|very|"
    r"all) )|just|in good|"
    r"recommend)\b"
)
RULES_AND_REFUSAL = re.compile(
    any_of(
        r"(?<!insurance )(?<!return )(?<!refund )\bpolic(?:y|ies)\b(?! ?(?:makers?|holders?))",
        r"\bguidelines?\b",
        r"\bsafety (?:rules?|section|standards?|protocols?)",
        r"\bterms of service\b",
        r"\bcompl(?:y|ies|iance|iant)\b(?<!not comply)",
        r"\brefus(?:e|es|al|ing)\b",
        r"\bdeclin(?:e|ing)\b",
        r"\breject\b",
        r"\b(?:can't|cannot|can not|won't|will not|mustn't|must not|shouldn't|should not|unable to|"
        r"not able to|not going to|don't want to|not allowed to|not comfortable)(?: \w+ly| even|"
        rf" possibly)?,? {_HELP}",
        r"\b(?:I|we) (?:really |definitely |certainly |absolutely )?(?:shouldn't|should not|must not|"
        r"mustn't|won't|cannot|can't)\b(?! (?:remember|recall|think of|wait|believe|say|see|tell|find|"
        r"figure))",
        r"\b(?:I'm|I am|we're) (?:really |so |very )?sorry\b",
        r"^(?:\W*)sorry\b",
        r"\bapologi[sz]e\b",
        r"\bregret\b",
        r"\bas an (?:ai|assistant)\b",
        r"\blanguage model\b",
        r"\bjust an ai\b",
        r"\b(?:should|can|could) I (?:even |really |actually )?(?:be )?(?:help|provid|answer|do|shar|giv|"
        r"writ|generat|creat)\w*\b[^?]{0,60}\?",
        r"\bsomething I should (?:even |really )?(?:be )?(?:help|provid|answer|do|shar|giv|writ|generat|"
        r"creat)\w*",
        r"\bunethical\b",
        r"\bimmoral\b",
        r"\b(?:not|isn't|legal(?:ly)? (?:and|or)|morally|even legal or) ethical\b",
        r"\bethic(?:s|al (?:concern|issue|implication|consideration|line|boundar)\w*)\b",
        r"\bagainst (?:the )?(?:law|rules?|policy)\b",
        r"\bnot (?:the |a |an |really |exactly |quite )?(?:right|okay|ok|acceptable|appropriate|allowed|"
        r"permitted|legal|good|safe|cool)\b",
        r"\binappropriate\b",
        r"\bunacceptable\b",
        r"\bdisallowed\b",
        r"\bprohibit(?:ed|s)\b",
        r"\bforbidden\b",
        r"\bred flags?\b",
        r"\b(?:alarm|warning) bells?\b",
        r"\bconcern(?:ing|ed|s)?\b(?! (?:is|about) (?:how|getting))",
        r"\bproblematic\b",
        r"\bworr(?:ying|isome|ied)\b",
        r"\bdisturbing\b",
        r"\buncomfortable\b",
        r"\b(?:hesitant|reluctant)\b",
        r"\balarming\b",
        r"\btroubling\b",
        r"\bsketchy\b",
        r"\bshady\b",
        r"\bsuspicious (?:request|question)\b",
        r"\b(?:doesn't|don't) (?:sound|seem|feel) (?:right|good|okay|safe|legal|appropriate)\b",
        r"\b(?:isn't|is|is this|is that|is it|would|wouldn't) (?:\w+ ){0,4}(?:even |actually )?(?:legal|"
        r"ethical|a crime|against|fraud|illegal|safe|okay|right to)\b(?=[^.]{0,80}\?)",
        r"\bviolat(?:es?|ing|ions?)\b",
        r"\binfring(?:es?|ing|ements?)\b",
        r"\bcopyright law\b",
        r"\bself-harm\b",
        r"\bcrisis (?:line|hotline|support)\b",
        r"\bhelplines?\b",
        r"\bprofessional help\b",
        r"\bmental health\b",
        r"\bempath(?:y|etic|etically|ize)\b",
        r"\bcompassion(?:ate)?\b",
        r"\bresponsibl[ey]\b",
        r"\bharmless alternative",
        r"\bharm reduction\b",
        r"\bsafe(?:ly)? and (?:helpful|respectful|legal|responsible)\b",
        r"\bhelpful and (?:safe|harmless|respectful|responsible)\b",
        r"\bminimi[sz]e harm\b",
        r"\bdefinitely (?:illegal|wrong|harmful)\b",
        r"\b(?:never|not) (?:\w+ )?(?:condone|encourage|promote|endorse|justified|justifiable)\b",
        r"\bpromot(?:e|ing) (?:harm|violence|hate)",
        r"\bhow to (?:safely )?(?:refuse|decline)\b",
    ),
    re.IGNORECASE,
)
CLEARED = re.compile(
    r"\b(?:no|nothing|isn't|is not|not|aren't|without)\b (?:(?:any|anything|really|inherently|a|an|"
    r"obviously|violating|disallowed|policy) ){0,3}"
    r"(?:harmful|illegal|dangerous|disallowed|wrong with|against (?:the )?(?:policy|rules)|"
    r"policy (?:issue|problem|violation|concern)s?|safety (?:issue|concern)s?|issues? here|"
    r"problematic|concerning)\b(?! (?:to|in) (?:say|ask))|\b(?:perfectly|completely|totally) (?:fine|"
    r"harmless|safe|legal|legitimate|benign|innocent)\b|"
    r"\b(?:is|seems|looks|sounds) (?:harmless|benign|innocuous|legitimate|allowed)\b",
    re.IGNORECASE,
)
CARE = re.compile(
    any_of(
        r"\bcareful(?:ly)?\b",
        r"\bcautio(?:n|us|usly)\b",
        r"\bthoughtful(?:ly)?\b",
        r"\bdelicate(?:ly)?\b",
        r"\bsensitiv(?:e|ely|ity)\b(?! (?:data|information|documents|systems?|files?))",
        r"\bappropriate(?:ly)?\b",
        r"\bavoid(?:ing)? (?:any |giving |providing |promoting |causing |making |spreading |harm\w*|"
        r"offen\w*|content|assist\w*)",
        r"\brespectful(?:ly)?\b",
        r"\bsupportive\b",
        r"\blegal (?:issues|implications|aspects|consequences|considerations)\b",
        r"\b(?:ethic|moral)\w*",
        r"\bsafe(?:ty|ly)?\b(?! ?(?:box|deposit|house|word|spot|combination|s\b))",
        r"\baccurate (?:and|information)",
        r"\bbalanced\b",
        r"\bprivacy\b",
        r"\bprotect(?:ed|ing)? (?:personal|private|privacy)",
        r"\bstereotypes?\b",
        r"\bmisconception",
        r"\b(?:potential|possible|likely|negative|ethical|real|moral|wider|broader) (?:\w+ )?(?:consequences|risks?|"
        r"dangers?|"
        r"harms?|implications|repercussions|impact)\b",
        r"\b(?:legal|lawful|legitimate|safer?|healthier|ethical|constructive|positive|better) (?:alternatives?|"
        r"options?)\b",
        r"\b(?:talk|speak|reach out|turn|go) to (?:a|an|my|their|your|the|some) (?:\w+ )?(?:lawyer|attorney|therapist|"
        r"counsel\w+|professional|friend|adult|police|authorities|expert)\b",
        r"\bbetter (?:to|if (?:I|we|they)) (?:just )?(?:talk|ask|tell|contact|report|leave|stop|find another|avoid|"
        r"not)\b",
        r"\bwell-being\b",
        r"\bsocial responsibility\b",
        r"\bwithout (?:violating|promoting|causing|encouraging|enabling|assisting|spreading|offending)\b",
    ),
    re.IGNORECASE,
)
EVASION = re.compile(
    r"\b(?:caught|detect(?:ed|ion|able)|suspicion|noticed?|traced?|discovered|found out|get away|"
    r"look(?:s)? (?:real|legit\w*|believable|"
    r"convincing)|undetected|raising (?:any )?(?:alarms?|flags))\b",
    re.IGNORECASE,
)
# A doubt that the same sentence puts aside, or that is only about the model's own practice.
OUTWEIGHED = re.compile(
    r"\b(?:but|though|still)\b.{0,60}\b(?:let me|let's|maybe|perhaps|I(?:'ll| can| could| will))\b|"
    r"\b(?:never|not|haven't|hasn't|don't|didn't)\b.{0,20}\b(?:done|tried|know much|familiar|"
    r"(?:really )?sure|experience|thought about|an expert|written|made)\b",
    re.IGNORECASE,
)
_NOUN = (
    r"(?:topic|subject|request|question|query|situation|issue|one|matter|area|statement|task|claim|case|"
    r"comment|idea|piece)"
)
DIFFICULT_REQUEST = re.compile(
    r"\b(?:that|this|it|topic|request|question|situation|which)(?:'s| is| was| sounds| seems|"
    rf" looks)(?:\W{{1,3}}\w+){{0,4}}?\W{{1,3}}"
    r"(?:tricky|tough|difficult|hard|touchy|complicated|loaded|weird|strange|odd|unusual|big|bold|"
    r"direct|specific|heavy|"
    rf"interesting|broad|clear)\W{{1,3}}(?:and \w+ )?{_NOUN}\b",
    re.IGNORECASE,
)
ABOUT_REQUEST = re.compile(
    r"\W*(?:(?:hmm+|oh|wait|okay|whoa|well|but|so|and)\b\W{1,4}){0,3}(?:that|this|it)(?:'s| is| sounds|"
    r" seems| looks| could| would| might| definitely| clearly| immediately)\b(?<!it seems)(?! going to be| like the\b)",
    re.IGNORECASE,
)
JUDGED_NOUN = re.compile(
    r"\b(?:like (?:they|the user|someone)|suspicious|target(?:s|ing)|generali[sz]\w+|unfair|serious|"
    rf"sensitive|dangerous|risky|unauthori[sz]ed|"
    rf"(?:security|health|legal) (?:issue|problem|matter|threat|breach)|privacy|personal|{_BAD})\b",
    re.IGNORECASE,
)
