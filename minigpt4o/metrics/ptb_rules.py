"""The rules by which English is cut as the Penn Treebank is: the longest match wins, among equals the earlier rule.

Behaviour of the tokenizer that the COCO caption tools call (Stanford CoreNLP 3.4.1, default options), found by
comparing outputs. A rule: first letters it can have, its pattern, what must follow (counted into the length).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property

# Marks that count as letters, and symbols that stand alone; code points outside all classes vanish.
_MARKS = """
00AD 02C2-02C5 02D2-02DF 02E5-02EB 02ED 02EF-036F 0375 0378-0379 0384-0385 03F6 0483-0487 055A-055F 0591-05BD 05BF
05C1-05C2 05C4-05C5 05C7 0615-061A 064B-065E 0670 06D6-06E4 06E7-06ED 06FD-06FE 070F 0711 0730-074C 07A6-07B0 07EB-07F3
0900-0903 093C 093E-094E 0951-0955 0962-0963 0981-0983 09BC 09BE-09C4 09C7-09C8 09CB-09CD 09D7 09E2-09E3 0A01-0A03 0A3C
0A3E-0A4F 0A81-0A83 0ABC 0ABE-0ACF 0B82 0BBE-0BC2 0BC6-0BC8 0BCA-0BCD 0C01-0C03 0C3E-0C56 0D3E-0D44 0D46-0D48 0E31
0E34-0E3A 0E47-0E4E 0EB1 0EB4-0EBC 0EC8-0ECD
"""
_SYMBOLS = """
0025-0026 002B 005C 005E 007C 007E 00A6-00A9 00AC 00AE-00B9 00D7 00F7 0387 05BE 05C0 05C3 05C6 05F3-05F4 0600-0603
0606-060A 060C 0614 061B 061E 066A 066D 0703-070D 07F6-07F8 0964-0965 0E4F 1FBD 2016-2017 2020-2023 2030-2038 203B
203E-2042 2044 207A-207E 208A-208E 2100-214F 2190-2BFF 3012 30FB FF01-FF0F FF1A-FF20 FF3B-FF40 FF5B-FF65
"""
_FIRST_PLANE = 0x10000  # beyond it the tokenizer sees two halves of a pair and mostly drops them (emoji)
_FAR = 400  # longest stretch a tag, address or compound may take, so that no answer costs time squared


def _ranges(points: list[int]) -> str:
    """Code points -> the inside of a regular expression's class."""
    out, start = "", points[0]
    for here, after in zip(points, [*points[1:], -1], strict=True):
        if after != here + 1:
            out += f"\\u{start:04X}-\\u{here:04X}"
            start = after
    return out


def _listed(text: str) -> str:
    return "".join("-".join(f"\\u{end}" for end in part.split("-")) for part in text.split())


def _capital(words: str) -> str:
    """Words whose first letter must be as written, the others in any case."""
    return "|".join(f"{word[0]}(?i:{re.escape(word[1:])})" for word in words.split())


def _any_of(*lists: str) -> str:
    """Words, case ignored, as a regular expression in which the longest wins."""
    words = sorted({word for one in lists for word in one.split()}, key=lambda word: (-len(word), word))
    return f"(?i:{'|'.join(map(re.escape, words))})"


def _classes() -> tuple[str, str, str]:
    letters: list[int] = []
    upper: list[int] = []
    digits = [*range(0x07C0, 0x07CA)]
    for point in range(_FIRST_PLANE):
        kind = unicodedata.category(chr(point))
        if kind[0] == "L":
            letters.append(point)
        if kind == "Lu":
            upper.append(point)
        if kind == "Nd":
            digits.append(point)
    return _ranges(letters), _ranges(sorted({*digits})), _ranges(upper)


_L, _D, _U = _classes()
_M = _listed(_MARKS)
SPACE = r"[ \t\xa0\u2000-\u200a\u3000]"
NEWLINE = r"(?:\r?\n|[\r\u2028\u2029\x0b\x0c\x85])"
_SPACE_OR_LINE = r"[ \t\xa0\u2000-\u200a\u3000\r\n\u2028\u2029\x0b\x0c\x85]"

_ENTITY = r"&[aeiouAEIOU](?i:acute|grave|uml);"
_LETTER = rf"(?:[{_L}{_M}]|{_ENTITY})"
_WORD_PART = rf"{_LETTER}(?:[{_L}{_M}{_D}]|{_ENTITY})*+"
_WORD = rf"{_WORD_PART}(?:[.!?]{_WORD_PART})*"
_APOS = r"(?:['\x92\u2019]|(?i:&apos;))"
_APOS_ANY = r"(?:['\x92\u2019`\x91\u2018\u201b]|(?i:&apos;))"
_CLITIC = rf"{_APOS}(?:(?i:re|ve|ll)|[msdMSD])"
_NOT = rf"(?i:n{_APOS_ANY}t)"
_BEFORE_NOT = r"[A-Za-z\xad]*[A-MO-Za-mo-z]\xad*"

_AN = rf"[{_L}{_D}]"
_SEPARATED = (
    rf"(?:[{_D}]+(?:[.:,\xad\u066b\u066c][{_D}]+)+|[.:,\xad\u066b\u066c][{_D}]+(?:[.:,\xad\u066b\u066c][{_D}]+)*)"
)
_NUMBER = rf"[-+]?(?:{_SEPARATED}|[{_D}]+)"
_DATE = rf"[{_D}]{{1,2}}[-/][{_D}]{{1,2}}[-/][{_D}]{{2,4}}"
_FRACTION = rf"(?:[{_D}]{{1,4}}[- \xa0])?[{_D}]{{1,4}}(?:\\?/|\u2044)[{_D}]{{1,4}}"
_HYPHEN = r"[-_\u058a\u2010\u2011]"
_ARTICLE = rf"[dDoOlL]{_APOS_ANY}{_AN}"
_THING_PART = rf"(?:{_ARTICLE})?(?:{_AN}+)"
_THING = rf"{_THING_PART}(?:{_HYPHEN}{_THING_PART})*"
_AMP = r"(?:[+&]|(?i:&amp;))"
_ACRONYM_MANY = (
    r"(?:[A-Za-z](?:\.[A-Za-z])+|(?i:canada|sino|korean|eu|japan|non)-[uU]\.[sS]|[uU]\.[sS]\.-[uU]\.(?i:k|s\.s\.r))"
)
_ACRONYM = rf"(?:{_ACRONYM_MANY}|[A-Za-z])"
_HYPHENATED = rf"[A-Za-z0-9][A-Za-z0-9.,\xad]{{0,{_FAR}}}+(?:-(?:{_ACRONYM_MANY}\.|[A-Za-z0-9\xad]+))+"
_SLASHED = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}"

# Abbreviations that keep their point; words in [] are case sensitive, since small they are common words.
_MONTHS_AND_DAYS = "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri"
_STATES = """ala ariz calif colo conn ct dak fla ga ind kan kans ky md mich minn mo mont neb nev okla penn tenn va vt
wis wisc wyo"""
_CASED_STATES = "Az Ark Del Ill La Mass Miss Ore Pa Tex Wash"
_FIRMS = "inc co cos corp ltd plc rt bancorp bhd assn univ intl sys"
_OTHER = "tel est ext sq jr sr bros esq etc al seq bldg blvd rd ed.d ph.d"
_BEFORE_SMALL = (
    rf"(?:{_any_of(_MONTHS_AND_DAYS, _STATES, _FIRMS, _OTHER)}|{_capital(_CASED_STATES)}|(?i:pp?t)[ye][sS]?)\."
)
_TITLES = """mr mrs ms dr drs prof profs sen sens rep reps atty attys lt col gen messrs gov govs adm rev maj sgt cpl pvt
capt st ste ave pres lieut hon brig comdr cmdr pfc spc supt supts det mt ft adj adv asst assoc ens insp mlle mme msgr
sfc rt"""
_MORE_TITLES = "vs alex wm jos cie a.k.a cf treas ph invt elec natl dept"
_BEFORE_CAPITAL = rf"(?:{_ACRONYM_MANY}|{_any_of(_TITLES, _MORE_TITLES)}|M(?i:iss)|(?i:m)[ft](?i:g)|[A-Za-z])"
_BEFORE_NUMBER = r"(?i:ca|figs?|prop|nos?|art|bldg|pp|op)\."
_SENTENCE_STARTS = """About According Additionally After An A As At But Earlier He Her Here However If In It Last Many
More Mr. Ms. Now Once One Other Our She Since So Some Such That The Their Then There These They This We When While What
Yet You"""

_NAME = rf"[A-Za-z][A-Za-z0-9_:.\-]{{0,{_FAR}}}"
_VALUE = rf"(?:'[^'\n]{{0,{_FAR}}}'|\"[^\"\n]{{0,{_FAR}}}\")"
_DECLARATION = rf"[!?][A-Za-z-][^>\r\n]{{0,{_FAR}}}"
_TAG = rf"<(?:{_DECLARATION}|{_NAME}(?: +{_NAME}(?: *= *{_VALUE})?){{0,50}} */?|/{_NAME}) *>"
_APOSTROPHE_WORDS = [
    rf"{_APOS}[nN]{_APOS}?",
    rf"[lLdDjJ]{_APOS}",
    rf"(?i:dunkin|somethin|ol){_APOS}",
    rf"{_APOS}(?i:em|till?|cause)",
    rf"[A-HJ-XZn]{_APOS_ANY}[{_L}]{{2}}[{_L}]*",
    rf"{_APOS}[2-9]0[sS]",
    rf"[{_L}][{_L}]*[aeiouyAEIOUY]{_APOS_ANY}[aeiouA-Z][{_L}]*",
    r"(?i:cont'd\.?|nor'easter|c'mon|e'er|s'mores|ev'ry|li'l|nat'l)",
]
_EXTENSIONS = """bat bmp c cgi class cpp dll doc docx exe gif gz h htm html jar java jpeg jpg mov mp3 pdf php pl png ppt
ps py sql tar txt wav x xml zip"""
_FILE = rf"(?:{_LETTER}|[{_D}])+(?:\.(?:{_LETTER}|[{_D}])+){{0,20}}\.{_any_of(_EXTENSIONS)}"
_URL = r"(?i:https?)://[^ \t\n\f\r\"<>|(){}]+[^ \t\n\f\r\"<>|.!?(){},-]"
_URL_PATH = r"(?:/[^ \t\n\f\r\"<>|()]+[^ \t\n\f\r\"<>|.!?(){},-])?"
_WEB = rf"(?i:www)\.(?:[^ \t\n\f\r\"<>|.!?(){{}},]{{1,{_FAR}}}+\.){{1,20}}[a-zA-Z]{{2,4}}{_URL_PATH}"
_DOMAIN = rf"(?:[^ \t\n\f\r\"`'<>|.!?(){{}},-_$]{{1,{_FAR}}}+\.){{1,20}}(?i:com|net|org|edu){_URL_PATH}"
_MAIL = (
    rf"(?:(?i:&lt;)|<)?[a-zA-Z0-9][^ \t\n\f\r\"<>|(){{}}\xa0]{{0,{_FAR}}}@"
    rf"(?:[^ \t\n\f\r\"<>|(){{}}.\xa0]{{1,{_FAR}}}\.){{0,20}}[^ \t\n\f\r\"<>|(){{}}.\xa0]+(?:(?i:&gt;)|>)?"
)
_PHONES = [
    r"\([0-9]{2,3}\)[ \xa0]?[0-9]{3,4}[- \xa0]?[0-9]{3,5}",
    r"(?:\+\+?)?(?:[0-9]{2,4}[- \xa0])?[0-9]{2,4}[- \xa0][0-9]{3,4}[- \xa0]?[0-9]{3,5}",
    r"(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}",
]
_QUOTE_MARKS = r"[`\u2018-\u201f\x82\x84\x91-\x94\u2039\u203a\xab\xbb]"


@dataclass(frozen=True)
class Rule:
    """One kind of token: first letters, pattern (the token is group 1, the rest is context), and what to do with it."""

    first: str
    text: str
    action: str

    @cached_property
    def begins(self) -> re.Pattern[str]:
        """Letters it may begin with."""
        return re.compile(f"[{self.first}]")

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Token and context."""
        return re.compile(self.text)


def _rule(first: str, token: str, action: str = "", then: str = "") -> Rule:
    return Rule(first, f"({token}){then}", action)


_LETTERS = f"{_L}{_M}"
_STARTS = _capital(_SENTENCE_STARTS)

RULES = (
    _rule("cCfF", r"[cC]\+\+|[cCfF]#"),
    _rule("cC'", r"(?i:cannot|'twas)", "back 3"),
    _rule("gGlLwW'", "(?i:'tis|gonna|gotta|lemme|gimme|wanna)", "back 2"),
    _rule("<", _TAG, "join"),
    _rule(r"&\x96\x97–—―", r"(?:&(?i:MD|mdash|ndash);|[\x96\x97–—―])", "--"),
    _rule("&", "(?i:&amp;)", "&"),
    _rule("&", r"&(?:(?i:HT|TL|UR|LR|QC|QL|QR|odq|cdq)|#[0-9]+);"),
    _rule(f"{_LETTERS}&", _WORD, "soft", _CLITIC),
    _rule(r"A-Za-z\xad", _BEFORE_NOT, "soft", _NOT),
    _rule(f"{_LETTERS}&", _WORD, "soft"),
    *(_rule(f"{_LETTERS}'’\x92&", pattern) for pattern in _APOSTROPHE_WORDS),
    _rule("yY", rf"[yY]{_APOS}", "", f"[{_L}]"),
    _rule("hH", _URL),
    _rule("wW", _WEB),
    _rule(r"^ \t\n\r", _DOMAIN),
    _rule("a-zA-Z0-9<&", _MAIL),
    _rule("@", "@[a-zA-Z_][a-zA-Z_0-9]*"),
    _rule("#", f"#{_LETTER}+"),
    _rule(r"'’\x92&", _CLITIC, "quote right", "[^A-Za-z]"),
    _rule("nN", _NOT, "quote right", "[^A-Za-z]"),
    _rule(_D, _DATE),
    _rule(rf"{_D}+\-.:,\xad٫٬", _NUMBER, "soft"),
    _rule("⁺⁻₊₋⁰¹²³⁴-⁹₀-₉", "[⁺⁻₊₋]?(?:[⁰¹²³⁴-⁹]+|[₀-₉]+)"),
    _rule(_D, _FRACTION, "join"),
    _rule("¼½¾⅓-⅞", "[¼½¾⅓-⅞]", "fraction"),
    _rule(
        "cCpPaAsS-",
        r"(?i:-(?:RRB|LRB|RCB|LCB|RSB|LSB)-|C\.D\.s|pro-|anti-|S(?:&|&amp;)P-500|S(?:&|&amp;)Ls)"
        rf"|(?i:cap){_APOS}[nN]|[cC]{_APOS}(?i:est)",
        "amp",
    ),
    _rule("A-Za-z0-9", _SLASHED),
    _rule("A-Z$", r"[A-Z]*\$"),
    _rule("#", "#"),
    _rule("¢£¤¥\x80₠€؋฿₤￠￡￥￦", "[¢£¤¥\x80₠€؋฿₤￠￡￥￦]", "currency"),
    _rule("A-Za-z", rf"{_ACRONYM}\.", "acronym", rf"{_SPACE_OR_LINE}+(?:{_STARTS}|{_TAG}){_SPACE_OR_LINE}"),
    _rule("A-Za-z", _BEFORE_NUMBER, "", rf"{_SPACE_OR_LINE}?[{_D}]"),
    _rule("pPcC", r"(?i:pt[ey]|co)\.", "", f"{SPACE}(?i:ltd|lim)"),
    _rule("A-Za-z", _BEFORE_SMALL, "again", rf"{_SPACE_OR_LINE}(?:{_SPACE_OR_LINE}|[{_U}]|{_TAG})"),
    _rule("A-Za-z", _BEFORE_SMALL, "", r"(?s:..)"),
    _rule("A-Za-z", _BEFORE_SMALL, "again"),
    _rule("A-Za-z", rf"{_BEFORE_CAPITAL}\."),
    _rule("A-Za-z", _BEFORE_CAPITAL, "", SPACE),
    _rule("A-Za-z", _ACRONYM, "", _SPACE_OR_LINE),
    _rule(r"'’\x92&", rf"{_APOS}[0-9][0-9]", "", _SPACE_OR_LINE),
    _rule(f"{_LETTERS}{_D}&", _FILE, "", rf"(?:{_SPACE_OR_LINE}|[.?!,])"),
    _rule(f"{_LETTERS}&", rf"{_WORD}\.", "soft", "[,;:、]"),
    *(_rule("(+0-9", pattern, "phone") for pattern in _PHONES),
    _rule("\"&'`", r"(?:\"|(?i:&quot;))", "quote left", "[A-Za-z0-9$]"),
    _rule("\"&'`", r"(?:\"|(?i:&quot;))", "quote right"),
    _rule("\x7f", "\x7f", "drop"),
    _rule("<&", "<|(?i:&lt;)", "<"),
    _rule(">&", ">|(?i:&gt;)", ">"),
    _rule("<>:;=", r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]]", "paren", "[^A-Za-z0-9]"),
    _rule(
        r"\^x=~<>\-'(",
        r"[\^x=~<>]\.\[\^x=~<>]|[-\^x=~<>']_[-\^x=~<>']|\([-\^x=~<>'][_.]?[-\^x=~<>']\)|\([\^x=~<>']-[\^x=~<>'`]\)",
        "paren",
    ),
    _rule("{", r"\{", "-LCB-"),
    _rule("}", r"\}", "-RCB-"),
    _rule(r"\[", r"\[", "-LSB-"),
    _rule(r"\]", r"\]", "-RSB-"),
    _rule("(", r"\(", "-LRB-"),
    _rule(")", r"\)", "-RRB-"),
    _rule("-", "-+", "dashes"),
    _rule(".\x85…", r"\.{3,5}|(?:\.[ \xa0]){2,4}\.|[\x85…]", "..."),
    _rule("@#_", "@+|#+|_+"),
    _rule(r"*\\", r"\*+|(?:\\\*){1,3}"),
    _rule(",;:、", "[,;:、]"),
    _rule("?!", "[?!]+"),
    _rule(r".¡¿\u037e\u0589\u061f\u06d4\u0700-\u0702。", r"[.¡¿\u037e\u0589\u061f\u06d4\u0700-\u0702。]"),
    _rule("=", "="),
    _rule("/", "/"),
    _rule("A-Za-z0-9", rf"{_HYPHENATED}\.", "soft", "[,;:、]"),
    _rule("A-Za-z0-9", _HYPHENATED, "soft"),
    _rule(f"{_L}{_D}", rf"{_THING}\.", "", "[,;:、]"),
    _rule(f"{_L}{_D}", _THING),
    _rule("A-Z", rf"[A-Z]+(?:{_AMP}[A-Z]+)+\.", "amp", "[,;:、]"),
    _rule("A-Z", rf"[A-Z]+(?:{_AMP}[A-Z]+)+", "amp"),
    _rule("'", "'", "quote left", r"[A-Za-z][^ \t\n\r\xa0]"),
    _rule(r"'’\x92&", _CLITIC, "quote right"),
    _rule("nN", _NOT, "quote right"),
    _rule(r"'’\x92&`‘-‟\x82\x84\x91-\x94‹›«»", rf"''|{_QUOTE_MARKS}{{1,2}}|{_APOS}", "quote right"),
    _rule("<>", "<<|>>"),
    _rule(_listed(_SYMBOLS), f"[{_listed(_SYMBOLS)}]"),
    _rule(r"\xa0\u2000-\u200a\u3000", f"{SPACE}+", "drop"),
    _rule("&", "(?i:&nbsp;)", "drop"),
)
