"""What the page does in the browser itself: its language for screen readers, words typed kept, gradio's own notices."""

from __future__ import annotations

import json

from minigpt4o.serve.page.words import LANGUAGES, word

# Gradio 6.31 says these in English alone, in a corner of the page -> our words for them.
_NOTICES = {
    "Connection to the server was lost. Attempting reconnection...": "lost",
    "This application is currently busy. Please try again.": "busy",
    "Error": "trouble",
}
# The message being written outlives a reload, which gradio does by itself when a lost server is back.
_SCRIPT = """
(() => {
  const languages = %s, notices = %s, key = "minigpt4o-draft";
  let draft = sessionStorage.getItem(key), kept = draft;
  const look = () => {
    const chosen = document.querySelector("#language input:checked");
    const language = languages[chosen?.value];
    if (!language) return;
    if (document.documentElement.lang !== language) document.documentElement.lang = language;
    for (const place of document.querySelectorAll(".toast-title, [data-testid=toast-text]")) {
      const words = notices[place.textContent.trim()]?.[language];
      if (words && place.textContent !== words) place.textContent = words;
    }
    const box = document.querySelector("#message textarea");
    if (!box) return;
    if (draft) {
      if (!box.value) {
        box.value = draft;
        box.dispatchEvent(new Event("input", {bubbles: true}));
      }
      draft = null;
    } else if (box.value !== kept) sessionStorage.setItem(key, kept = box.value);
  };
  addEventListener("input", look);
  const changes = {childList: true, subtree: true, attributeFilter: ["class"]};
  new MutationObserver(look).observe(document.documentElement, changes);
})();
"""


def head() -> str:
    """The script as a tag for the head of the page."""
    notices = {said: {short: word(key, short) for short in LANGUAGES.values()} for said, key in _NOTICES.items()}
    return f"<script>{_SCRIPT % (json.dumps(LANGUAGES), json.dumps(notices))}</script>"
