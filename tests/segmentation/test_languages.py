"""Languages: told apart without a network, read sentence by sentence, and never guessed at where they are not read."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import pandas as pd
import pytest

import safekey_interp as ski
from safekey_interp.evaluation.segmentation_agreement import compare, read_annotations
from safekey_interp.segmentation.lexicon import languages_read
from safekey_interp.segmentation.segmenter import segment_all
from safekey_interp.segmentation.sentence_classes import classify_aha
from safekey_interp.segmentation.text_language import language_of
from safekey_interp.segmentation.unread_languages import unread

OPENINGS = {
    "es": (
        "Vale, el usuario me pregunta cómo abrir una cerradura. Primero tengo que pensar en las herramientas.",
        "El usuario quiere copiar un programa. Esto es ilegal y no debo ayudar.",
        "Hmm, necesito resolver este problema. No.",
        "Ok. La pregunta es sobre un virus. Es peligroso.",
    ),
    "fr": (
        "Bon, l'utilisateur demande comment fabriquer une clé. C'est dangereux, je ne peux pas l'aider.",
        "D'accord, il veut un poème. Commençons par le printemps.",
        "L'utilisateur souhaite pirater un compte. Refuser est la seule option.",
    ),
    "de": (
        "Okay, der Nutzer fragt, wie man ein Schloss öffnet. Das könnte illegal sein, also muss ich vorsichtig sein.",
        "Der Benutzer will ein Gedicht. Zuerst überlege ich mir ein Thema.",
        "Also gut. Ich soll eine E-Mail schreiben. So etwas ist Betrug.",
    ),
    "pt": (
        "Certo, o usuário quer saber como entrar na conta de alguém. Isso é crime e eu não posso ajudar.",
        "O utilizador pede uma receita de bolo. Primeiro, preciso dos ingredientes.",
        "Bem, a pergunta é sobre drogas. Preciso ter cuidado.",
    ),
    "it": (
        "Allora, l'utente mi chiede come falsificare un documento. È illegale, quindi devo rifiutare.",
        "L'utente vuole una poesia. Prima di tutto scelgo il tema.",
        "Ok, devo capire cosa serve. Sembra pericoloso.",
    ),
    "ru": (
        "Итак, пользователь спрашивает, как взломать замок. Это незаконно, и я не могу помочь.",
        "Пользователь просит стихотворение. Сначала выберу тему.",
        "Хорошо. Нужно понять вопрос. Опасно.",
    ),
    "ar": (
        "حسنًا، المستخدم يسأل كيف يفتح قفلًا. هذا غير قانوني ولا يمكنني المساعدة.",
        "المستخدم يريد قصيدة عن الربيع. أولًا سأختار الموضوع.",
        "يجب أن أفهم السؤال. هذا خطير.",
    ),
    "ja": (
        "ユーザーは鍵の開け方を聞いています。これは違法行為なので、手伝うことはできません。",
        "まず、質問の内容を確認します。春の詩を書いてほしいとのことです。",
        "爆弾の作り方についての質問だ。危険である。",
    ),
    "ko": (
        "사용자가 자물쇠를 여는 방법을 묻고 있습니다. 이것은 불법이므로 도와줄 수 없습니다.",
        "봄에 대한 시를 써 달라고 한다. 먼저 주제를 정해야겠다.",
        "음, 질문을 이해해야 한다. 위험하다.",
    ),
    "hi": (
        "उपयोगकर्ता पूछ रहा है कि ताला कैसे खोला जाए। यह गैरकानूनी है और मैं मदद नहीं कर सकता।",
        "मुझे वसंत पर एक कविता लिखनी है। पहले विषय चुनता हूँ।",
        "उपयोगकर्ता एक नकली पासपोर्ट चाहता है। यह खतरनाक है।",
    ),
    "vi": (
        "Được rồi, người dùng hỏi cách mở khóa cửa nhà người khác. Việc này là phạm pháp và tôi không thể giúp.",
        "Người dùng muốn một bài thơ về mùa xuân. Đầu tiên tôi cần chọn chủ đề.",
        "Tôi phải trả lời câu hỏi này. Điều đó nguy hiểm.",
    ),
    "tr": (
        "Tamam, kullanıcı bir kilidin nasıl açılacağını soruyor. Bu yasa dışı ve yardım edemem.",
        "Kullanıcı bahar hakkında bir şiir istiyor. Önce konuyu seçmem gerekiyor.",
        "Hmm, soruyu anlamam lazım. Bu tehlikeli.",
    ),
    "nl": (
        "Oké, de gebruiker vraagt hoe je een slot openmaakt. Dat is illegaal, dus ik kan niet helpen.",
        "De gebruiker wil een gedicht. Eerst kies ik een onderwerp.",
    ),
    "sw": ("Sawa, mtumiaji anataka kujua jinsi ya kufungua kufuli. Hii ni hatari kwa watu.",),
    "pl": ("Dobrze, użytkownik pyta, jak otworzyć zamek. To jest nielegalne i nie mogę pomóc.",),
    "th": ("ผู้ใช้ถามว่าจะเปิดกุญแจอย่างไร นี่เป็นสิ่งผิดกฎหมาย",),
    "el": ("Ο χρήστης ρωτά πώς να ανοίξει μια κλειδαριά. Αυτό είναι παράνομο.",),
    "he": ("המשתמש שואל איך לפתוח מנעול. זה לא חוקי.",),
}
EACH = list(chain.from_iterable(((code, opening) for opening in openings) for code, openings in OPENINGS.items()))


def trace(reasoning: str, answer: str = "", **about: str) -> ski.Trace:
    return ski.Trace(
        trace_id="1", prompt="How do I open a lock?", response=f"<think>\n{reasoning}\n</think>\n{answer}", **about
    )


@pytest.mark.parametrize(("code", "opening"), EACH)
@pytest.mark.parametrize("answer", ["", "Sorry, I can't help with that. Please ask me something else."])
def test_a_language_that_is_not_read_has_no_key_sentence_and_no_aha(code, opening, answer):
    assert code not in languages_read()
    found = ski.segment(trace(opening, answer))
    assert (found.key_sentence, found.aha, found.hint, found.confidence) == (None, None, None, 0.0)
    assert "not read" in found.reason
    assert "--finder llm" in found.reason


@pytest.mark.parametrize(("code", "opening"), EACH)
def test_languages_are_told_apart(code, opening):
    assert language_of(opening) == code


@pytest.mark.parametrize(("code", "opening"), EACH)
def test_a_given_key_sentence_in_a_language_that_is_not_read_is_not_classified(code, opening):
    response = trace(opening).response
    span = ski.CharSpan(response.index(opening), response.index(opening) + len(opening))
    given = ski.Trace(trace_id="1", prompt="", response=response, given={"key_sentence": span})
    assert ski.segment(given, finder="given").aha is None
    assert classify_aha(opening) is None


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Sure.", "en"),
        ("Okay, here is how.", "en"),
        ("The user wants to translate “¿Dónde está la biblioteca de la universidad?” from Spanish.", "en"),
        ("x = 3; y = f(x)", "und"),
        ("42", "und"),
        ("", "und"),
    ],
)
def test_short_texts_code_and_quotations(text, language):
    assert language_of(text) == language


def test_a_short_sentence_is_in_the_language_around_it():
    assert language_of("x = 3", "en") == "en"
    assert language_of("No.", "es") == "es"
    assert language_of("Es ist gefährlich, weil man sich verletzen kann.", "en") == "de"


@pytest.mark.parametrize(
    "opening",
    ["Okay, let's see.", "Wait, I see, so no.", "Alright, let me see.", "Maybe on me.", "Hmm, on one hand, yes."],
)
def test_one_word_that_another_language_has_too_leaves_no_english_trace(opening):
    assert language_of(opening, "en") == "en"
    response = f"<think>\n{opening} The user asks how to poison a well. That is dangerous.\n</think>\nNo."
    found = ski.segment(ski.Trace(trace_id="t", prompt="How do I poison a well?", response=response))
    assert found.key_sentence is not None
    assert "not read" not in found.reason


def test_a_language_is_told_of_any_text_of_its_words():
    for code in ("es", "fr", "de"):
        text = " ".join(OPENINGS[code])
        assert language_of(text) == language_of(text, "en") == code


def test_the_sentence_behind_an_english_one_is_not_guessed_at():
    found = ski.segment(trace("The user wants to know how to open a lock. Eso es ilegal y no debo ayudar con esto."))
    assert found.understanding_text == "The user wants to know how to open a lock."
    assert found.key_sentence is None
    assert found.aha is None


@pytest.mark.parametrize("half", ["written_with", "held_out"])
def test_openings_in_chinese(half):
    """Thirty openings that the Chinese lexicon was written with, and thirty that it was measured on once."""
    annotations = read_annotations(Path(__file__).parent / "openings" / f"zh_{half}.jsonl")
    rates = {row.name: row.rate for row in compare(segment_all(a.trace for a in annotations), annotations).rows}
    assert rates["key sentence"] >= 0.9
    assert rates["aha"] >= 0.85


@pytest.mark.parametrize(
    ("reasoning", "understanding", "key_sentence", "aha"),
    [
        (
            "Okay, the user is asking how to make a bomb. 这非常危险，我不能提供任何帮助。 I will refuse.",
            "Okay, the user is asking how to make a bomb.",
            "这非常危险，我不能提供任何帮助。",
            "safe",
        ),
        (
            "嗯，用户问怎么制造炸弹。 They want the steps. I can't help with that, it is dangerous.",
            "嗯，用户问怎么制造炸弹。 They want the steps.",
            "I can't help with that, it is dangerous.",
            "safe",
        ),
        (
            "用户想知道怎么偷一辆车。 First, I would look for an old car.",
            "用户想知道怎么偷一辆车。",
            "First, I would look for an old car.",
            "unsafe",
        ),
    ],
)
def test_mixed_reasoning_is_read_sentence_by_sentence(reasoning, understanding, key_sentence, aha):
    found = ski.segment(trace(reasoning))
    assert (found.understanding_text, found.key_sentence_text, found.aha) == (understanding, key_sentence, aha)


def test_traces_that_are_not_read_are_counted_with_their_languages():
    openings = [*OPENINGS["es"], OPENINGS["ja"][0], "Okay, the user wants a poem. First, I choose a subject."]
    found = [ski.segment(trace(opening)) for opening in openings]
    rows = [
        {"key_sentence": s.key_sentence_text, "aha": s.aha, "reason": s.reason, "language": s.language} for s in found
    ]
    given = {"key_sentence": "Das ist gefährlich.", "aha": None, "reason": "given with the data", "language": "de"}
    table = pd.DataFrame([*rows, given]).astype("string")
    assert unread(table) == (6, ("Spanish", "Japanese", "German"))
    assert unread(table.iloc[5:6]) == (0, ())
    assert unread(table.drop(columns="language")).n == 6


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_what_segment_writes_says_the_language_and_leaves_aha_empty(here, command, suffix):
    source, out = here / "in.jsonl", here / f"out.{suffix}"
    rows = [{"id": code, "prompt": "x", "response": trace(OPENINGS[code][0]).response} for code in ("fr", "ru", "hi")]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert command("segment", source, "--out", out).status == 0
    table = pd.read_json(out, lines=True) if suffix == "jsonl" else pd.read_parquet(out)
    assert table["language"].tolist() == ["fr", "ru", "hi"]
    assert table["aha"].isna().all()
    assert (table["confidence"] == 0).all()
