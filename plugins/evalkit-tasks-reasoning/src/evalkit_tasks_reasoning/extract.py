"""Find the answer to a BIG-Bench Hard question in free text, as lm-evaluation-harness 0.4.13 does.

Each subtask asks for something else: an option's letter, a number, yes or no, brackets, a list of words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping

from evalkit.tasks import Filter, regex
from evalkit.tasks.filters import INVALID
from evalkit.tasks.repeats import Steps
from evalkit_tasks_reasoning.number_words import number_in_words

PATTERNS = {
    "boolean_expressions": r"\b(True|False)\b",
    "causal_judgement": r"\b(Yes|No|yes|no)\b",
    "dyck_languages": r'(?<= )([" \[\(<{}>\)\]]+)|([" \[\(<{}>\)\]]+)',
    "formal_fallacies": r"\b(valid|invalid)\b",
    "navigate": r"\b(Yes|No|yes|no)\b",
}
MEANINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "sports_understanding": {"no": ("no", "not plausible"), "yes": ("yes", "plausible")},
    "web_of_lies": {
        "no": ("no", "does not tell the truth", "is not telling the truth"),
        "yes": ("yes", "tells the truth", "is telling the truth"),
    },
}
NUMBERS = ("multistep_arithmetic_two", "object_counting")
LETTER = re.compile(r"(\([A-Z]\))")
DIGITS = re.compile(r"([-0-9]+)")


def extractor(subtask: str, select: int) -> Steps:
    """The filter that finds a subtask's answer; `select` is 0 for the first match, -1 for the last."""
    if subtask in PATTERNS:
        return (regex(PATTERNS[subtask], select=select),)
    if subtask in MEANINGS:
        return (meaning(MEANINGS[subtask], select),)
    if subtask in NUMBERS:
        return (number(select),)
    if subtask == "word_sorting":
        return lambda doc: (words_in_order(doc["input"]),)
    return lambda doc: (option(doc["input"], select),)


def meaning(phrases: Mapping[str, tuple[str, ...]], select: int) -> Filter:
    """The word that a phrase in the text stands for, in any case."""
    stands_for = {phrase: word for word, of_word in phrases.items() for phrase in of_word}
    pattern = re.compile(rf"\b(?:{'|'.join(stands_for)})\b")
    return _each(lambda text: stands_for.get(_match(pattern, text.lower(), select), ""))


def number(select: int) -> Filter:
    """The digits in the text; where there are none, a number in words."""
    return _each(lambda text: _match(DIGITS, text, select) or number_in_words(text.lower(), select))


def words_in_order(question: str) -> Filter:
    """The words that the question lists, in the order in which the text names each for the last time."""
    words = question.split("List:")[1].split()
    pattern = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in words))

    def find(text: str) -> str:
        backwards = dict.fromkeys(reversed(pattern.findall(text)))
        return " ".join(reversed(backwards))

    # No word at all is an empty answer, not an invalid one.
    return lambda texts: [find(text) for text in texts]


def option(question: str, select: int) -> Filter:
    """The letter of the question's option: "(A)" in the text, else the option's own words, else ": A"."""
    listed = [_plain(words.strip()) for words in re.findall(r"\([A-Z]\)([^\n^(]*)", question)]
    # Letters go by place: a bracketed letter in the question itself would shift them, in the harness too.
    letters = {chr(ord("A") + place): words for place, words in enumerate(listed)}
    by_words = {words: f"({letter})" for letter, words in letters.items()}
    # The longest first: an option may begin another one.
    own_words = re.compile("|".join(sorted(map(re.escape, listed), key=len, reverse=True)))
    bare = re.compile(rf":[\s]*({'|'.join(letters)})")

    def find(text: str) -> str:
        if letter := _match(LETTER, text, select):
            return letter
        if words := _match(own_words, _plain(text), select):
            return by_words.get(words, words)
        letter = _match(bare, text, select)
        return f"({letter})" if letter else ""

    return _each(find)


def _each(find: Callable[[str], str]) -> Filter:
    return lambda texts: [find(text) or INVALID for text in texts]


def _match(pattern: re.Pattern[str], text: str, select: int) -> str:
    """The match number `select`, or nothing."""
    matches = pattern.findall(text)
    return str(matches[select]).strip() if matches else ""


def _plain(text: str) -> str:
    """Lower case, without punctuation of any script."""
    return "".join(char for char in text.lower() if not unicodedata.category(char).startswith("P"))
