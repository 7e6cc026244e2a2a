"""Sentences in English, French and German: those written for this project, or LibreOffice's help.

The help is what Debian's libreoffice-help-en-us, -fr and -de put under /usr/share/libreoffice/help (MPL-2.0): a page
per topic and language, whose paragraphs carry the same id in every language. Its lexicon is learned from it.
"""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from induction_cli.config import require
from induction_cli.generality.prompts import align, words

FOLDERS = {"en": "en-US", "fr": "fr", "de": "de"}
PARAGRAPH = re.compile(r'<p id="(par_id\w+)"[^>]*>(.*?)</p>', re.DOTALL)
TAG = re.compile(r"<[^>]*>")
LENGTH = range(6, 26)  # words of an English paragraph: one sentence, as a rule
ALIGNED = 3  # words the lexicon must know in a sentence, in each language
MOST = 100  # sentences taken of the help
OFTEN, TOGETHER = 5, 0.5  # sentences a pair of words must share, and its Dice coefficient, to enter the lexicon


@cache
def sentence_pairs() -> dict[str, Any]:
    """sentences [{en, fr, de}] and lexicon {language: {word: 'english words'}}, written for this project."""
    return json.loads(Path(__file__).with_name("sentence_pairs.json").read_text(encoding="utf-8"))


def paragraphs(page: str) -> dict[str, str]:
    """{id: text} of a page of LibreOffice's help, without markup."""
    return {name: " ".join(html.unescape(TAG.sub("", inside)).split()) for name, inside in PARAGRAPH.findall(page)}


def help_sentences(folder: Path) -> list[dict[str, str]]:
    """[{en, fr, de}] of LibreOffice's help, each English text once; folder holds en-US/, fr/ and de/.

    One sentence each: as many words as LENGTH says, and a full stop at the end only. Untranslated ones are left out.
    Raises ConfigError where a language is missing.
    """
    for inside in FOLDERS.values():
        packages = "Debian's libreoffice-help-en-us, -fr and -de put it in /usr/share/libreoffice/help"
        require((folder / inside).is_dir(), f"pairs_folder: '{folder}' has no folder {inside}; {packages}")
    found: dict[str, dict[str, str]] = {}
    first = folder / FOLDERS["en"]
    for path in sorted(first.rglob("*.html")):
        pages = {language: folder / inside / path.relative_to(first) for language, inside in FOLDERS.items()}
        if not all(page.is_file() for page in pages.values()):
            continue
        texts = {language: paragraphs(page.read_text(encoding="utf-8")) for language, page in pages.items()}
        for name, text in texts["en"].items():
            same = {language: texts[language].get(name, "") for language in FOLDERS}
            one = len(text.split()) in LENGTH and text.endswith(".") and ". " not in text
            if one and all(same.values()) and len(set(same.values())) == len(FOLDERS):
                found.setdefault(text, same)
    return list(found.values())


def learned_lexicon(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """{word of the translation: English word} from (English, translation) sentences alone.

    Each is the other's best by the Dice coefficient: sentence pairs that hold both words, twice, over those that hold
    either. At least OFTEN pairs, and TOGETHER.
    """
    english, foreign, both = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    for source, target in pairs:
        a, b = ({word for word, *_ in words(text)} for text in (source, target))
        english.update(a)
        foreign.update(b)
        both.update((word, other) for word in b for other in a)
    dice = {pair: 2 * n / (foreign[pair[0]] + english[pair[1]]) for pair, n in both.items() if n >= OFTEN}
    best: dict[str, dict[str, float]] = {"foreign": {}, "english": {}}
    for (word, other), value in dice.items():
        best["foreign"][word] = max(value, best["foreign"].get(word, 0))
        best["english"][other] = max(value, best["english"].get(other, 0))
    return {
        word: other
        for (word, other), value in sorted(dice.items())
        if value >= TOGETHER and value == best["foreign"][word] == best["english"][other]
    }


@cache
def help_pairs(folder: Path, seed: int = 0) -> dict[str, Any]:
    """As `sentence_pairs`, from LibreOffice's help: MOST random sentences of whose words the lexicon knows ALIGNED."""
    sentences = help_sentences(folder)
    lexicon = {
        language: learned_lexicon([(each["en"], each[language]) for each in sentences])
        for language in FOLDERS
        if language != "en"
    }

    def aligned(sentence: dict[str, str]) -> bool:
        english = [word for word, *_ in words(sentence["en"])]
        return all(
            len(align([word for word, *_ in words(sentence[language])], english, known)) >= ALIGNED
            for language, known in lexicon.items()
        )

    order = np.random.default_rng(seed).permutation(len(sentences))
    chosen = [sentences[i] for i in order if aligned(sentences[i])]
    require(len(chosen) >= 2, f"pairs_folder: '{folder}' has no sentences that can be aligned")
    return {"sentences": chosen[:MOST], "lexicon": lexicon}
