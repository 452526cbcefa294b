"""What the page adds to gradio's own style."""

# Pictures and players are laid out as usual though words keep their blanks; nothing is shared with other sites.
STYLE = """
.message.component, .message.component > div { white-space: normal !important; }
button[aria-label="Share"] { display: none; }
.gradio-container { width: 100%; max-width: 1280px !important; margin: 0 auto !important; }
/* the width does not follow the words: nothing moves between two clicks on a picture */
.gradio-container .main, .gradio-container main, .gradio-container main > .column { width: 100% !important; }
#top { align-items: center; } #top h1 { margin: 0; }
#tasks { gap: 6px; flex-wrap: wrap; } #tasks button { flex: 0 1 auto; min-width: 0; }
#hint p, #marked p { margin: 0; color: var(--body-text-color); font-size: .9rem; }
#marked { min-height: 3.4em; }
#board img { cursor: crosshair; }
#examples .label { display: none; }
#numbers table { width: 100%; } #numbers thead { display: none; }
#examples audio { max-width: 100%; }
@media (max-width: 640px) {
  #top > * { flex: 1 1 100% !important; min-width: 0 !important; }
  #examples .gallery-item { max-width: 100%; overflow: hidden; }
  .gradio-container main, .gradio-container .main { padding: 8px !important; }
  #chat { height: 58vh !important; min-height: 320px; }
}
"""
