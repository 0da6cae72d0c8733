"""Titles that say nothing, or nothing of their item: empty, boilerplate, foreign."""

import re
from collections import Counter

import numpy as np

# What people and programs write where a title is missing.
NOTHING = {"", "untitled", "no title", "notitle", "title", "none", "null", "nan", "na", "n a"}
NOTHING |= {"unknown", "test", "tbd", "todo", "undefined", "placeholder", "lorem ipsum"}
SERIES = 5  # items that share a title, numbers aside, from which on it is boilerplate
LETTERS = 8  # a title of fewer does not tell its language
COMMON = 0.001  # of all titles, and at least 3 of them, share a triple of letters that is known


def plain(title: str) -> str:
    """A title in small letters and digits, its words one blank apart: what makes it the same."""
    return " ".join(re.findall(r"[^\W_]+", str(title).casefold()))


def says_nothing(titles: np.ndarray) -> np.ndarray:
    """1 for titles without a word, or with one that stands for none; float [n], 0 elsewhere."""
    return np.array([float(plain(title) in NOTHING) for title in titles])


def boilerplate(titles: np.ndarray) -> np.ndarray:
    """How many items share each title, numbers aside, float [n]; NaN where nothing is left."""
    forms = [" ".join(re.sub(r"\d+", " ", plain(title)).split()) for title in titles]
    counts = Counter(forms)
    return np.array([np.nan if form in NOTHING else float(counts[form]) for form in forms])


def foreign(titles: np.ndarray) -> np.ndarray:
    """Share of each title's triples of letters that hardly any other title has, float [n].

    NaN for titles with fewer than LETTERS letters. Another script scores 1, another language more
    than half, and so does a row of random keys.
    """
    triples = [_triples(title) for title in titles]
    counts = Counter(triple for found in triples for triple in set(found))
    least = max(3, COMMON * sum(bool(found) for found in triples))
    return np.array(
        [
            float(np.mean([counts[triple] < least for triple in found]))
            if len(found) >= LETTERS - 2
            else np.nan
            for found in triples
        ]
    )


def _triples(title: str) -> list[str]:
    letters = " ".join(re.findall(r"[^\W\d_]+", str(title).casefold()))
    return [letters[start : start + 3] for start in range(len(letters) - 2)]
