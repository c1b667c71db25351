"""What does a sentence of reasoning do: restate the request, judge it, or get going?

Restating is a speech act with a grammatical form: the asker as subject ("the user is asking", "they want"), the
request as subject ("the goal is", "this is a request for"), the model's own task ("I need to figure out how to
respond"), a question about what is meant, or, where the model has slipped into the asker's skin ("I own this shop"),
a statement about that life. A clause that brings in rules, a verdict or a plan ("…, so I must refuse") makes the
whole sentence a decision.
"""

from __future__ import annotations

import re
from typing import Literal

Voice = Literal["answering", "doing", "asker"]

_LEAD = (
    r"(?:(?:okay|ok|alright|all right|right|so|well|now|and|also|then|but|plus|additionally|furthermore|"
    r"moreover|specifically|"
    r"basically|essentially|apparently|however|here|hmm+|ah|oh|in other words|on top of that|"
    r"it (?:seems|looks|sounds) like|it (?:seems|appears) that|"
    r"I (?:see|think|guess|understand)(?: that)?|wait|first(?:ly| off| of all)?|next|afterwards|"
    r"meanwhile|in particular|from (?:the|their|this) (?:prompt|query|question|request|message)|"
    r"based on (?:the|their|this) (?:prompt|query|question|request|message))\b\W{0,4}){0,4}"
)
_PERSON = (
    r"(?:(?:the|this|a|our) (?:user|person|individual|questioner|asker|requester|customer|client|"
    r"prompter)|user)(?:'s)?"
)
_PRONOUN = r"(?:they|he|she)"
_REQUEST = (
    r"(?:(?:the|this|their|his|her|user's|user|whole|actual|main|real) ){1,3}(?:request|question|query|"
    r"prompt|message|instructions?|task|statement|scenario|situation|goal|aim|idea|purpose|"
    r"intent(?:ion)?|objective|point|story|setting|premise|context|catch|problem|claim|post|article|"
    r"email|essay|script|review|friend|boss)"
)

_ASKER_SUBJECT = re.compile(rf"\W*{_LEAD}{_PERSON}\b", re.IGNORECASE)
_PRONOUN_SUBJECT = re.compile(rf"\W*{_LEAD}(?:{_PRONOUN}|their|his|her|both)\b", re.IGNORECASE)
_ADVISES = re.compile(
    rf"\W*{_LEAD}(?:{_PERSON}|{_PRONOUN})\W{{1,3}}(?:\w+ly )?(?:should|can|could|would|will|"
    r"need(?:s)? to (?:know|understand|be|see)|shouldn't|can't|won't)\b",
    re.IGNORECASE,
)
_REQUEST_SUBJECT = re.compile(
    rf"\W*{_LEAD}{_REQUEST}(?: here| is that| in question)?\W{{1,3}}(?:\w+ly )?(?:is|was|seems|asks?|"
    r"asking|wants?|says?|mentions?|involves?|includes?|needs?|has|should|must|requires?|being|are|"
    r"appears)\b",
    re.IGNORECASE,
)
_THIS_IS_REQUEST = re.compile(
    r"\W*(?:(?:so|okay|and|basically|essentially|now)\b\W{1,3}){0,2}(?:this|it)(?:'s| is|"
    r" seems to be| appears to be| means)(?: (?:basically|essentially|just|like))? (?:(?:a|an|about|"
    r"the) (?:\w+ )?(?:request|question|query|prompt|task|instruction|scenario|role-?play)\b|about\b|"
    r"asking\b|they\b|the user\b|for (?:a|an|the|their)\b)",
    re.IGNORECASE,
)
# Whoever acts in the plan; what the asker wants made is no agent.
_AGENT = (
    r"(?:attacker|hacker|scammer|thief|criminal|perpetrator|killer|burglar|smuggler|person|people|victim|target|"
    r"recipient|police|authorities|law)s?\b"
)
_NEEDS_TO_BE = re.compile(
    rf"\W*{_LEAD}(?:it|this|they|these|those|the (?!{_AGENT}|response|answer|reply|policy|policies|ai|key|best|"
    rf"main|first|most|model|assistant)(?:(?!would|could|might|may)[\w' -]){{2,30}}?)\W{{1,3}}(?:also )?(?:needs? to|"
    r"should|has to|"
    r"must|is supposed to|is meant to)\b",
    re.IGNORECASE,
)
_OWN_TASK = re.compile(
    rf"\W*{_LEAD}(?:I|we|my (?:task|job|goal) is to|I'm|I am)\W{{1,3}}(?:\w+ly )?(?:need|have|want|"
    r"am asked|'ve been asked|been asked|trying|supposed|must|should)?(?: to)? ?(?:figure out|determine|"
    r"work out|decide|know|see|find)? ?(?:on )?(?:how|what|the (?:best|right|proper|most appropriate|"
    r"best possible) (?:way|response|answer|approach))(?: (?:for|to me))? ?(?:to |I should |"
    r"I can )?(?:best )?(?:respond|answer|reply|say|address|handle|deal with|help|tackle|"
    r"approach)?(?: to| with)?(?: (?:this|that|it|them|the user|their|user's|this user|the|request|"
    rf"query|question|the user's|here)){{0,3}}[^\w]*\Z",
    re.IGNORECASE,
)
_REPORTED_REQUEST = re.compile(
    rf"\b(?:{_PERSON}|{_PRONOUN})(?:'re|'s| is| are)? (?:\w+ly |now |also |just |then |"
    rf"even ){{0,2}}(?:ask(?:s|ing|ed)?|want(?:s|ing|ed)?|request(?:s|ing|ed)?|tell(?:s|ing)) (?:me|for|"
    r"how|about|if|whether|to)\b",
    re.IGNORECASE,
)
_MEANING = re.compile(
    rf"\W*{_LEAD}(?:what|which|who|are|is|do|does|did|could|might|maybe|perhaps)\b[^?]{{0,80}}\b(?:they|"
    rf"the user|he|she|user)\b[^?]{{0,40}}\b(?:mean|means|meant|want|wants|ask|asks|asking|looking|"
    r"referring|talking|trying|interested|after)\b",
    re.IGNORECASE,
)
_MOTIVE_QUESTION = re.compile(rf"\W*{_LEAD}why\b", re.IGNORECASE)

# A clause that decides: rules, a verdict on the request, a plan drawn from it.
_RULES = (
    r"(?:(?:safety|our|my|content|usage|openai|privacy|personal data|misinformation|disinformation|"
    r"self-harm|harassment|behavior|property|"
    r"(?<!non-)discrimination|relevant|adult|content|violence|harm) (?:polic(?:y|ies)|guidelines?|rules?|"
    r"section)|\bthe (?:safety )?(?:policies|guidelines)\b|polic(?:y|ies) (?:section|says?|mentions?|"
    r"states?)|against (?:the |my |our )?(?:rules|polic|law|guidelines))"
)
_VERDICT = (
    r"(?:il+egal|unlawful|unethical|immoral|dangerous|harmful|wrong|inappropriate|concerning|"
    r"problematic|worrying|disturbing|troubling|alarming|sensitive|serious(?! (?:about|injur\w*|"
    r"illness))|risky|tricky|disallowed|prohibited|not (?:allowed|okay|ok|right|appropriate|ethical|"
    r"legal|good)|a (?:red flag|crime|violation|big no)|red flags?|hateful|discriminatory)"
)
_DECIDES = re.compile(
    rf"{_RULES}|[,;—-]\W{{0,3}}(?:which|that|this)(?: (?:is|are|was|could|would|might|may|can|be|also|"
    r"clearly|definitely|seems?|sounds?|looks?|immediately|really|very|pretty|a|an|both|potentially|"
    rf"considered|highly|quite|obviously|all))*(?: \w+ (?:and|or))? (?:{_VERDICT}|falls?|violat\w+|"
    r"goes against|raises?|touch\w+ on)|"
    r"\b(?:is|are|seems?|sounds?|looks?|feels?)(?: (?:clearly|definitely|very|really|pretty|quite|"
    rf"highly|potentially|inherently|a bit|likely|obviously|also|both|a|an))* (?:{_VERDICT})(?! (?:to|"
    r"for) (?:them|him|her|their)\b)(?=\W*(?:\Z|[,.;!?]|and|or|because|since|as|request|question|topic|"
    r"issue|subject|statement|matter|one))|"
    rf"\brefus\w+|\bfalls? under\b|\bviolat(?:es|ing)\b|\bdisallowed\b|\braises?\b.{{0,20}}\b(?:flags?|"
    r"concerns?)\b",
    re.IGNORECASE,
)
# In the asker's own voice such a clause is part of the story ("…, so I can't take them back").
_PLANS = re.compile(
    r"[,;:—-]\W{0,3}(?:and|so|but|which means)\W{1,2}(?:that )?(?:I|we)(?:'ll|'m| am)?(?: \w+ly| just|"
    r" really)? ?(?:have to|need to|must|should|can't|cannot|will|shouldn't|won't|going to|"
    r"want to (?:make|be))\b|"
    r"\band I have to\b|\b(?:I|we) (?:must|should|cannot|can't|won't)\b",
    re.IGNORECASE,
)
# A plan that settles the outcome. A first sentence with one is K: nothing is left to decide after it.
_RESOLVES = re.compile(
    r"[,;:—-]\W{0,3}(?:(?:and|so|but|therefore|thus|hence)\W{1,2}){1,2}(?:that )?(?:I|we)(?:'m|"
    r" am)? (?:\w+ly )?(?:must|can't|cannot|won't|shouldn't|will not|mustn't|(?:should|have to|need to|"
    r"going to|will) (?:not|refuse|decline|reject|warn))\b|"
    r"\b(?:I|we)(?:'ll| will| must| should| have to| need to) (?:\w+ly )?(?:refuse|decline|not)\b",
    re.IGNORECASE,
)
_TAKES_CARE = re.compile(
    rf"{_RULES}|\b(?:while|without|according|keeping|making sure|ensur\w+|careful\w*|appropriately|"
    r"safe\w*|responsib\w+|respectful\w*|sensitive\w*|thoughtful\w*|in a way|adher\w+|complian\w+|"
    r"complies|comply|ethical\w*|avoid\w*|given|since|because)\b",
    re.IGNORECASE,
)

_BRIDGE = re.compile(
    rf"\W*{_LEAD}(?:let me|let's|I need to|I should|I'll|I have to|we need to|"
    rf"time to)\W{{1,3}}(?:(?:start|begin) (?:by|with) )?(?:first )?"
    r"(?:re-?read\w*|read\w*|look(?:ing)? at|understand\w*|pars\w+|unpack\w*|break\w*|clarify\w*|see|"
    r"go(?:ing)? (?:over|through)|make sure I understand|summari[sz]\w+|think(?:ing)?(?: (?:this|"
    r"it) through| about (?:this|it))?)\b(?![^.]{0,60}\bpolic)[^.?!]{0,110}[.!:]*\W*\Z",
    re.IGNORECASE,
)
_INTERJECTION = re.compile(
    r"\W*(?:(?:hmm+|okay|ok|alright|all right|right|so|well|wait|oh|ah|uh|um|huh|hm|whoa|wow|now|"
    r"let's see|let me see|let me think|sure)\b\W*){1,3}\Z",
    re.IGNORECASE,
)

_ASKER_VOICE = re.compile(
    r"\b(?:I(?:'m| am) (?:thinking (?:about|of)|planning|considering|having|feeling|going|in|at|a|an|"
    r"the)|I (?:own|have (?:this|a|an|been|my|some|these)|"
    r"had|want|wanna|bought|got|live|work|feel|was|just|don't have)|I've (?:been|got|had|always)|"
    r"I'd (?:like|love)|we (?:have|own|are)|"
    r"my (?!understanding|knowledge|response|answer|goal|task|job|mind|head|best|first|main)[a-z]+)\b",
    re.IGNORECASE,
)
_ANSWERING_VOICE = re.compile(
    r"\b(?:users?|they(?:'re| are| want| ask)|asking|asks|asked me|wants me|respond|request|query|"
    r"prompt|someone (?:who|says))\b",
    re.IGNORECASE,
)
_ANYONE = re.compile(r"\bhow (?:someone|somebody|anyone|people|one|a person)\b", re.IGNORECASE)
_SET_TASK = re.compile(r"\b(?:this|the|a) (?:question|task|assignment|challenge|topic)\b", re.IGNORECASE)
_THINKS = re.compile(
    r"\W*(?:(?:but|and|so|well|okay|alright|now|then)\b\W{1,3}){0,2}(?:hmm+|wait|first|second|let me|"
    r"let's|maybe|perhaps|i (?:should|could|guess|think|know|remember|wonder|heard|recall|suppose|can|"
    r"understand|believe|mean)\b|i'(?:ll|ve heard|ve read|ve seen|m not (?:sure|entirely))|"
    r"i need to (?:understand|think|start|know|consider|find|remember|break|look|be careful|make sure|"
    r"research|learn|gather|outline|identify|check|explore|approach|address|respond|provide|ensure|"
    r"analy[sz]e|come up)|"
    r"what|why|how|where|who|when|is|are|do|does|can|could|would|should|this (?:is|sounds|seems|could|"
    r"might)|that(?:'s| is| sounds| seems| could| would| might)|one|there(?:'s| is| are)|from what|okay|"
    r"to (?:start|begin))\b",
    re.IGNORECASE,
)
_WISH = re.compile(
    r"\W*(?:(?:but|plus|also|and|so|now|then)\b\W{1,3}){0,2}I (?:also |just |really |only )?(?:need|"
    r"want|'d like|would like|don't want|hope|wish|plan|intend) (?:it|this|that|them|these|those|the|my|"
    r"people|everyone|someone|others)\b",
    re.IGNORECASE,
)
_GOAL_QUESTION = re.compile(
    r"\W*(?:(?:hmm+|so|but|well|now|okay)\b\W{1,3}){0,2}(?:how|what|where) (?:can|could|do|should|would|"
    r"might) I (?!(?:even |possibly |really )?(?:start|begin|approach|go about|do (?:this|that|it)|"
    r"proceed|tackle|handle|respond|answer|say|help))(?:\S+ ){4,}",
    re.IGNORECASE,
)

_OWN_LIFE = re.compile(rf"\b(?:I|me|my|mine|myself|we|us|our)\b|\A\W*{_LEAD}(?:it|he|she|they)\b", re.IGNORECASE)
_WONDERS = re.compile(
    r"\b(?:let me|let's|maybe|perhaps|not sure|I'd (?:better|need|have)|I'll|I (?:should|could|would|will|guess|"
    r"wonder|suppose)|"
    r"no (?:idea|clue)|my (?:first|next|best) (?:step|thought|instinct|guess|bet|idea|move)|"
    r"(?:want|need|have) to (?:think|learn|understand|find out|research|be careful|consider)|never|"
    r"I figure|(?:might|could) be (?:an? |the )?(?:\w+ )?(?:option|way|idea|start|place)|the (?:key|trick|first|best|"
    r"easiest|main|"
    r"next|hardest) (?:is|thing|step|way|part|place)|(?:bad|terrible) idea|guilty|il+egal|nervous|worried|"
    r"(?:don't|do not) (?:\w+ly )?(?:know|follow|understand|have (?:any |much |a lot of )?(?:experience|idea))|"
    r"not (?:\w+ )?(?:experienced|familiar|an? \w+)|heard|gr[ae]y area)\b",
    re.IGNORECASE,
)

_DECISION_OPENING = re.compile(
    r"\W*(?:(?:hmm+|wait|oh|whoa|well|no)\b\W{1,3}){0,2}(?:(?:that|this)(?:'s| is| sounds| seems)\b|"
    r"first\b|firstly\b|let me\b|let's\b|sure\b|certainly\b|of course\b|absolutely\b|here(?:'s| is|"
    r" are)\b|to (?:start|begin)\b|step (?:1|one)\b|I(?:'m| am) (?:so |really |very )?(?:sorry|afraid|"
    r"unable|not able)|(?:I|we) (?:really )?(?:can't|cannot|won't|will not|must|mustn't|should|"
    r"shouldn't|refuse|have to refuse|could|will)\b|I'll\b|sorry\b|no\b|as an ai\b|unfortunately\b|"
    r"we (?:can't|cannot|must|should)\b)",
    re.IGNORECASE,
)
_ADDRESSES_ASKER = re.compile(
    r"\b(?:you(?:'re| are) (?:asking|looking|trying|requesting|interested|wondering|saying)|you (?:want|"
    r"asked|would like|'d like|need|mentioned|said)|your (?:question|request|query|message)|(?:sounds|"
    r"seems|looks) like you|understand (?:that )?you)",
    re.IGNORECASE,
)
_FRAMES = re.compile(
    rf"\W*{_LEAD}(?:I|I'm|I am|I've|we|we're)\W{{1,3}}(?:\w+ly |also |just |really )?(?:need|have|want|"
    r"'d like|'ve been|'m|am|got|trying|going|thinking|supposed|asked|own|should|must|wonder|looking|curious|"
    r"interested|planning|here)\b",
    re.IGNORECASE,
)
_MENTIONS_REQUEST = re.compile(r"\b(?:users?|they|request|query|question|asking|asks)\b", re.IGNORECASE)


def voice(opening: str) -> Voice:
    """In whose voice the first sentence speaks: answering someone, doing a task, or living the asker's life."""
    if _ANSWERING_VOICE.search(opening):
        return "answering"
    if _ANYONE.search(opening) or _SET_TASK.search(opening):
        return "doing"
    return "asker" if _ASKER_VOICE.search(opening) or not _FRAMES.match(_plain(opening)) else "doing"


def opens_with_request(sentence: str, answer: bool) -> bool:
    """Whether a first sentence may be the understanding.

    In reasoning it is unless it has the form of a decision; in an answer it is only when it restates. One that
    restates and settles the outcome at once ("the user asks for X, so I must refuse") is no understanding.
    """
    text = _plain(sentence)
    if _RESOLVES.search(text):
        return False
    if answer:
        restated = _ADDRESSES_ASKER.search(text) or _restating_form(text, "answering")
        return bool(restated) and not _DECISION_OPENING.match(text)
    return not _DECISION_OPENING.match(text) or (
        bool(_MENTIONS_REQUEST.search(text)) and not _decides(text, "answering")
    )


def continues(voice_before: Voice, sentence: str) -> Voice:
    """In whose voice the text goes on after ``sentence``: once it has spoken of the asker, "they" is the asker."""
    return "answering" if _ANSWERING_VOICE.search(sentence) else voice_before


def restates(sentence: str, spoken_by: Voice) -> bool:
    """Whether a sentence after the first goes on restating, in a text of that voice."""
    text = _plain(sentence)
    return not _decides(text, spoken_by) and _restating_form(text, spoken_by)


def decides(sentence: str, spoken_by: Voice) -> bool:
    """Whether a clause of the sentence brings in rules, a verdict on the request, or a plan drawn from it."""
    return _decides(_plain(sentence), spoken_by)


def frames_task(sentence: str) -> bool:
    """Whether a first sentence says what is to be done ("I'm trying to figure out how …"), or speaks as the asker."""
    return bool(_FRAMES.match(_plain(sentence)))


def bridges(sentence: str) -> bool:
    """Whether a sentence only announces that the request will be read or taken apart."""
    return bool(_BRIDGE.match(_plain(sentence)))


def interjects(sentence: str) -> bool:
    """Whether a sentence is an interjection alone ("Hmm."), which belongs to the next one."""
    return len(sentence) < 40 and bool(_INTERJECTION.match(_plain(sentence)))


def thinks(sentence: str) -> bool:
    """Whether a sentence has the form of a thought of one's own rather than of a report."""
    return bool(_THINKS.match(_plain(sentence)))


def _restating_form(text: str, spoken_by: Voice) -> bool:
    if _ADVISES.match(text):
        return False
    reports = _ASKER_SUBJECT.match(text) or _REQUEST_SUBJECT.match(text) or _THIS_IS_REQUEST.match(text)
    if reports or (_REPORTED_REQUEST.search(text) and not _THINKS.match(text)):
        return True
    if (_OWN_TASK.match(text) or _NEEDS_TO_BE.match(text)) and not _TAKES_CARE.search(text):
        return True
    if spoken_by == "answering":
        asks_meaning = "?" in text and _MEANING.match(text) and not _MOTIVE_QUESTION.match(text)
        return bool(_PRONOUN_SUBJECT.match(text) or asks_meaning)
    return bool(_WISH.match(text)) or (spoken_by == "asker" and _tells(text))


def _tells(text: str) -> bool:
    """Whether a sentence in the asker's own voice goes on with the story, or puts its aim as a question.

    What the world is like ("banks check such things"), what the asker does not know or has never done, and a plan that
    begins are thoughts about the task, no longer the story.
    """
    if "?" in text:
        return bool(_GOAL_QUESTION.match(text))
    return bool(_OWN_LIFE.search(text)) and not _THINKS.match(text) and not _WONDERS.search(text)


def _decides(text: str, spoken_by: Voice) -> bool:
    return bool(_DECIDES.search(text)) or (spoken_by != "asker" and bool(_PLANS.search(text)))


def _plain(text: str) -> str:
    return text[:1_200].replace("’", "'").replace("‘", "'").replace("\n", " ")
