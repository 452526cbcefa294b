"""Small pieces of HTML for the reports: words of others as harmless text, tables, and the frame of a page."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

_HERE = Path(__file__).parent
_NO_SCRIPT = "script-src 'none'"  # stands in the frame's policy; a page with a script names its hash instead
LONGEST_TEXT = 4000  # characters of one text that a page shows


def text(value: Any) -> str:
    """Words of others as harmless text; signs that cannot be seen, or that turn the line around, as their numbers."""
    return html.escape("".join(c if c == "\n" or not _hidden(c) else _number(c) for c in str(value)), quote=True)


def _hidden(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cf", "Co", "Cs")


def _number(letter: str) -> str:
    return f"\\u{ord(letter):04x}" if ord(letter) > 0xFF else f"\\x{ord(letter):02x}"


def cut(words: str, most: int = LONGEST_TEXT) -> str:
    """The words, or their beginning and how much is left out."""
    return words if len(words) <= most else f"{words[:most]} … ({len(words) - most:,} more characters)"


def table(rows: str, *heads: str, name: str = "", css: str = "") -> str:
    """A table that scrolls by itself when it is too wide; a head that begins with > stands on the right.

    `rows` is HTML; `name` is what a screen reader calls the table.
    """
    cells = "".join(
        f'<th scope="col" class="n">{text(h[1:])}</th>' if h[:1] == ">" else f'<th scope="col">{text(h)}</th>'
        for h in heads
    )
    head = f"<thead><tr>{cells}</tr></thead>" if heads else ""
    label = f' aria-label="{text(name)}"' if name else ""
    kind = f' class="{css}"' if css else ""
    return f'<div class="wide"><table{kind}{label}>{head}<tbody>{rows}</tbody></table></div>'


def facts(pairs: Sequence[tuple[str, Any]]) -> str:
    """Names and values below each other; empty values are left out."""
    shown = [(name, value) for name, value in pairs if value not in ("", None, {}, [])]
    return f'<dl class="facts">{"".join(f"<dt>{text(n)}</dt><dd>{_value(v)}</dd>" for n, v in shown)}</dl>'


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"<code>{text(', '.join(f'{k}={_plain(v)}' for k, v in value.items()))}</code>"
    if isinstance(value, list | tuple):
        return "<br>".join(text(one) for one in value)
    return f"<code>{text(cut(str(value)))}</code>"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def data_block(name: str, value: Any) -> str:
    """Data for the page's script: a block that no browser runs, and that nothing inside can end."""
    return f'<script type="application/json" id="{name}">{packed(value)}</script>'


def packed(value: Any) -> str:
    """JSON as it stands inside a page: ASCII alone, and no sign that begins a tag."""
    words = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False, default=str)
    return words.replace("<", chr(92) + "u003c")


def framed(title: str, subtitle: str, sections: Sequence[tuple[str, str, str]], data: str = "") -> str:
    """A page of (id, heading, HTML); with `data`, a `data_block`, the script that reads it is there too.

    The page's policy lets it use what it carries and run that one script, known by its hash, and nothing else.
    """
    links = "".join(f'<a href="#{id}">{text(name)}</a>' for id, name, _ in sections)
    body = "".join(f'<section id="{id}"><h2>{text(name)}</h2>{inner}</section>' for id, name, inner in sections)
    frame = Template((_HERE / "report.html").read_text(encoding="utf-8"))
    page = frame.substitute(title=text(title), subtitle=subtitle, links=links, sections=body + data)
    page = page.replace("<!--style-->", f"<style>{(_HERE / 'report.css').read_text(encoding='utf-8')}</style>", 1)
    if not data:
        return page
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = page.replace(_NO_SCRIPT, f"script-src 'sha256-{digest}'", 1)
    head, end = page.rsplit("<!--script-->", 1)
    return f"{head}<script>{script}</script>{end}"
