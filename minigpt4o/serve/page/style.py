"""What the page adds to gradio's own style."""

from __future__ import annotations

from typing import Any

# Fonts of the reader's own system: nothing is fetched, and Latin and Japanese letters go together.
_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Hiragino Sans", "Noto Sans CJK JP", "Noto Sans JP", "Yu Gothic UI"]

# Pictures and players are laid out as usual though words keep their blanks; nothing is shared with other sites.
STYLE = """
.message.component, .message.component > div { white-space: normal !important; }
/* the button that would share an answer with another site, known by its picture: its name changes with the language */
button:has(> div > svg > path[d^="M23,20a5,5,0"]) { display: none; }
.icon-button-wrapper:has(> button:only-child > div > svg > path[d^="M23,20a5,5,0"]) { display: none; }
.gradio-container { width: 100%; max-width: 1280px !important; margin: 0 auto !important; }
/* the width does not follow the words: nothing moves between two clicks on a picture */
.gradio-container .main, .gradio-container main, .gradio-container main > .column { width: 100% !important; }
#top { align-items: center; } #top h1 { margin: 0; font-size: 1.5rem; }
#chat .placeholder-content { gap: 8px; padding: 12px; overflow-y: auto; justify-content: center; }
#chat .placeholder { height: auto; padding: 0 0 8px; } #chat .examples { padding: 0; gap: 8px; }
#chat .example { padding: 10px 12px; } #chat .example-content { gap: 6px; }
#under { align-items: center; gap: 8px; flex-wrap: nowrap; } #under > #new { flex: 0 0 auto; min-width: 0; }
#tasks { gap: 6px; flex-wrap: wrap; } #tasks button { flex: 0 1 auto; min-width: 0; }
#hint p, #marked p { margin: 0; color: var(--body-text-color-subdued); font-size: .9rem; }
#hint:not(:has(p)) { display: none; }
#board img { cursor: crosshair; }
#seen .grid-container { grid-template-columns: repeat(auto-fill, minmax(180px, 1fr)); padding-top: 34px; }
#seen .thumbnail-item { height: 190px; aspect-ratio: auto; } #seen .thumbnail-item img { object-fit: contain; }
#language .wrap { flex-wrap: nowrap; } #language label { white-space: nowrap; }
#message textarea::placeholder { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
#numbers table { width: 100%; } #numbers thead { display: none; }
#numbers :is(td, tr, table) { border-color: var(--border-color-primary) !important; } #numbers td { padding: 4px 8px; }
@media (max-width: 640px) {
  #top > * { flex: 1 1 100% !important; min-width: 0 !important; }
  .gradio-container main, .gradio-container .main { padding: 8px !important; }
  #chat { height: 62vh !important; min-height: 320px; }
  #top h1 { font-size: 1.25rem; }
  #chat .examples { grid-template-columns: 1fr 1fr; }
}
"""


def theme() -> Any:
    """Colours and fonts, readable on light and dark."""
    import gradio

    chosen = gradio.themes.Default(
        primary_hue="indigo", secondary_hue="indigo", neutral_hue="slate", font=[*_FONTS, "sans-serif"]
    )
    quiet = {"": "*neutral_500", "_dark": "*neutral_400"}  # at least 4.5 : 1 on what they stand on
    names = ("input_placeholder_color", "body_text_color_subdued")
    return chosen.set(**{name + mode: shade for name in names for mode, shade in quiet.items()})
