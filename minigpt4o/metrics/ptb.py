"""Cut English as the COCO caption tools do: Penn Treebank tokens in lower case, without their list of punctuation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from minigpt4o.metrics.ptb_rules import NEWLINE, RULES, SPACE, Rule

# Tokens the COCO tools drop. They list "-LRB-" too, but compare it with lower-cased tokens: brackets stay.
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

_PLAIN = re.compile(r"[A-Za-z]+(?=[,!?;:]*[ \n])")  # no rule reaches beyond such a word
_SPACES = re.compile(f"{SPACE}*")
_SPLIT = frozenset({"cannot", "gonna", "gotta", "lemme", "gimme", "wanna"})
_FIRST_PAIR = "\U00010000"
_BREAKS = re.compile(NEWLINE)
_FRACTIONS = str.maketrans({"¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"})
_CURRENCIES = str.maketrans({"¢": "cents", "£": "#", "\x80": "$", "¤": "$", "₠": "$", "€": "$"})
_BRACKETS = str.maketrans({"(": "-LRB-", ")": "-RRB-"})
_AMP = re.compile("&amp;", re.IGNORECASE)
_SINGLE, _DOUBLE = re.compile("&apos;|'"), re.compile('"|&quot;')
_CURLY = str.maketrans(
    {
        **dict.fromkeys("\x91‘‛‹", "`"),
        **dict.fromkeys("\x92’›", "'"),
        **dict.fromkeys("\x93“«", "``"),
        **dict.fromkeys("\x94”»", "''"),
    }
)


def ptb_tokens(lines: Sequence[str]) -> list[list[str]]:
    """All tokens of each line in lower case, punctuation included.

    A line's cut may look into the next line, as in the original: "plan B." before "The ..." is `b` and not `b.`.
    """
    texts = [_halves(_BREAKS.sub(" ", line)) for line in lines]
    whole, at, cut = "\n".join(texts), 0, []
    for text in texts:
        tokens = [_whole(token).lower() for token in _cut(whole, at, at + len(text))]
        cut.append([token for token in tokens if token])
        at += len(text) + 1
    return cut


def coco_words(lines: Sequence[str]) -> list[list[str]]:
    """Tokens of each line without punctuation, as the COCO caption tools hand them to their metrics."""
    return [[token for token in tokens if token not in PUNCTUATION] for tokens in ptb_tokens(lines)]


def _cut(text: str, at: int, end: int) -> list[str]:
    tokens: list[str] = []
    while at < end:
        if text[at] in " \t":
            at = _SPACES.match(text, at).end()  # type: ignore[union-attr]
            continue
        plain = _PLAIN.match(text, at)
        if plain is not None and (word := plain.group()).lower() not in _SPLIT:
            tokens.append(word)
            at = plain.end()
            continue
        token, at = _longest(text, at, end)
        if token:
            tokens.append(token)
    return tokens


def _halves(text: str) -> str:
    """Letters beyond the first plane as two halves each: the original reads UTF-16."""
    if text.isascii() or max(text) < _FIRST_PAIR:
        return text
    pairs = text.encode("utf-16-be", "surrogatepass")
    return "".join(chr(pairs[i] << 8 | pairs[i + 1]) for i in range(0, len(pairs), 2))


def _whole(token: str) -> str:
    return token if token.isascii() else token.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "ignore")


def _longest(text: str, at: int, end: int) -> tuple[str, int]:
    """The token that begins here and where the next one may begin; no token where the letter is dropped."""
    best, reach, chosen = None, at, ""
    for rule in _rules(text[at]):
        match = rule.pattern.match(text, at)
        if match is not None and match.end() > reach and match.end(1) <= end:
            best, reach, chosen = match, match.end(), rule.action
    if best is None:
        return "", at + 1
    return _shaped(best.group(1), chosen, best.end(1))


@lru_cache(maxsize=4096)
def _rules(letter: str) -> tuple[Rule, ...]:
    return tuple(rule for rule in RULES if rule.begins.match(letter))


def _shaped(token: str, action: str, after: int) -> tuple[str, int]:
    """The token as the treebank writes it, and where reading goes on."""
    match action.split():
        case []:
            return token, after
        case ["back", count]:
            return token[: -int(count)], after - int(count)
        case ["again"]:  # the point belongs to the abbreviation and ends the sentence too
            return token, after - 1
        case ["acronym"]:
            return (token[:-1] if len(token) == 2 else token), after - 1
        case ["quote", side]:
            return _quotes(token, side == "left"), after
    return _SHAPES[action](token) if action in _SHAPES else action, after


def _quotes(token: str, left: bool) -> str:
    token = _SINGLE.sub("`" if left else "'", token)
    token = _DOUBLE.sub("``" if left else "''", token)
    return token.translate(_CURLY)


_SHAPES = {
    "join": lambda token: token.replace(" ", "\xa0"),
    "soft": lambda token: token.replace("\xad", "") or "-",
    "fraction": lambda token: token.translate(_FRACTIONS),
    "currency": lambda token: token.translate(_CURRENCIES),
    "amp": lambda token: _AMP.sub("&", token),
    "paren": lambda token: token.translate(_BRACKETS),
    "phone": lambda token: token.replace(" ", "\xa0").translate(_BRACKETS),
    "dashes": lambda token: "--" if len(token) in (3, 4) else token,
    "drop": lambda token: "",
}
