"""A chat as files: JSON that opens again, and one HTML page for reading that needs nothing beside it."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

from PIL import Image

from minigpt4o.conversation.sample import Box, Media
from minigpt4o.serve.page.board import upright
from minigpt4o.serve.page.drawing import coloured, drawn, enlarged, marked, things_of
from minigpt4o.serve.page.words import word

if TYPE_CHECKING:
    from minigpt4o.serve.chat import ChatSession, Exchange

# The page may run no program and fetch nothing, whatever an answer or a file name holds.
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem; color: #222;
  background: #fff; }
article { border: 1px solid #ddd; border-radius: 8px; padding: .6rem 1rem; margin: .8rem 0; overflow-wrap: anywhere; }
article.you { background: #eef4ff; margin-left: 3rem; } article.model { margin-right: 3rem; }
h2 { font-size: .8rem; margin: 0; color: #666; } p { white-space: pre-wrap; margin: .3rem 0; }
img { max-width: 100%; display: block; margin: .4rem 0; } audio { width: 100%; }
figure { margin: .4rem 0; } figcaption { font-size: .8rem; color: #666; }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #eee; } article.you { background: #1d2a44; }
  article { border-color: #444; } }
"""
_SOUNDS = ((b"RIFF", "audio/wav"), (b"fLaC", "audio/flac"), (b"OggS", "audio/ogg"))


def page_of(session: ChatSession, title: str, language: str) -> str:
    """The chat as HTML: pictures, sounds and drawn boxes inside, nothing that runs."""
    parts, pictures = [], []
    for exchange in session.exchanges:
        pictures += exchange.images
        parts.append(_said(exchange, pictures, word("you", language)))
        parts.append(_answered(exchange, pictures, word("assistant", language)))
    head = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="{language}"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{head}</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>{head}</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def about(exchange: Exchange, pictures: list[Media]) -> int | None:
    """Number of the picture that an answer speaks of, as `answered_about` says: that of all drawn boxes, else the
    newest; None without any."""
    drawn_on = {box.image for box in exchange.boxes}
    if len(drawn_on) == 1:
        return drawn_on.pop()
    return len(pictures) - 1 if pictures else None


def _said(exchange: Exchange, pictures: list[Media], who: str) -> str:
    parts = [_figure(media) for media in exchange.images] + [_player(media) for media in exchange.audios]
    for number in sorted({box.image for box in exchange.boxes}):
        picture = upright(pictures[number])
        if picture is not None:
            own: list[Box] = [box for box in exchange.boxes if box.image == number]
            parts.append(f"<figure>{_image(marked(picture, own))}</figure>")
    return (
        f'<article class="you"><h2>{html.escape(who)}</h2>{"".join(parts)}<p>{html.escape(exchange.text)}</p></article>'
    )


def _answered(exchange: Exchange, pictures: list[Media], who: str) -> str:
    number = about(exchange, pictures)
    picture = upright(pictures[number]) if number is not None else None
    things = things_of(exchange.answer, picture.size) if picture is not None else []
    words = coloured(exchange.answer) if things else html.escape(exchange.answer)
    shown = f"<figure>{_image(drawn(picture, things))}</figure>" if picture is not None and things else ""
    return f'<article class="model"><h2>{html.escape(who)}</h2><p>{words}</p>{shown}</article>'


def _figure(media: Media) -> str:
    picture = upright(media)
    shown = _image(enlarged(picture)) if picture is not None else ""
    return f"<figure>{shown}<figcaption>{html.escape(str(media))}</figcaption></figure>"


def _player(media: Media) -> str:
    data = media.read()
    kind = next((kind for start, kind in _SOUNDS if data.startswith(start)), "audio/mpeg")
    address = f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return (
        f'<figure><audio controls src="{address}"></audio><figcaption>{html.escape(str(media))}</figcaption></figure>'
    )


def _image(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.convert("RGB").save(file, "WEBP", quality=88)
    return f'<img alt="" src="data:image/webp;base64,{base64.b64encode(file.getvalue()).decode("ascii")}">'
