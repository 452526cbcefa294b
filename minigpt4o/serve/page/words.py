"""Every word of the page, in English and Japanese."""

from __future__ import annotations

LANGUAGES = {"English": "en", "日本語": "ja"}

_WORDS: dict[str, tuple[str, str]] = {
    "message": ("Message", "メッセージ"),
    "language": ("Language", "表示言語"),
    "model": ("Model", "モデル"),
    "ask": ("Ask something", "メッセージを入力"),
    "with": (", with {media}", "(添付: {media})"),
    "image": ("a picture", "画像"),
    "audio": ("a sound", "音声"),
    "or": (" or ", "・"),
    "empty": (
        "Ask about a picture or a sound, or just talk.",
        "画像や音声について質問するか、そのまま話しかけてください。",
    ),
    "new": ("New chat", "新しいチャット"),
    "picture": ("Picture and boxes", "画像と枠"),
    "board": ("The picture: click two corners to draw a box", "画像(対角の二点をクリックして枠を描く)"),
    "which": ("Which picture", "どの画像"),
    "no_boxes": ("Remove my boxes", "枠を消す"),
    "marked": ("{n} box(es) go with your next message.", "次のメッセージに枠を{n}個付けます。"),
    "corner": ("Now click the opposite corner.", "反対側の角をクリックしてください。"),
    "how": (
        "Attach a picture; what you mean in it can then be marked with a box.",
        "画像を添付すると、示したい物を枠で囲めます。",
    ),
    "draw": (
        "Click two opposite corners of what you mean.",
        "示したい物の対角の二点をクリックしてください。",
    ),
    "box": ("box", "枠"),
    "answered": ("Boxes of the answer", "回答の枠"),
    "sampling": ("How it answers", "回答の生成方法"),
    "greedy": ("Always the likeliest word (greedy)", "常に最も確からしい語を選ぶ(貪欲法)"),
    "temperature": ("Temperature", "温度"),
    "top_p": ("Top-p", "Top-p"),
    "beams": ("Beams (no streaming above 1)", "ビーム数(2以上では逐次表示なし)"),
    "tokens": ("Longest answer, tokens", "回答の最大トークン数"),
    "repetition": ("Repetition penalty", "繰り返しの抑制"),
    "seen": ("What the model saw", "モデルが見たもの"),
    "media": ("Pictures and sounds as the model gets them", "モデルに入力された画像と音声"),
    "prompt": ("The whole prompt", "プロンプト全体"),
    "raw": ("The answer, letter by letter", "回答の原文"),
    "nothing": ("Ask something first.", "まず質問してください。"),
    "text_tokens": ("text tokens", "テキストのトークン"),
    "media_tokens": ("places of pictures and sounds", "画像と音声の位置数"),
    "reused": ("of all these, kept from before", "以上のうち再利用"),
    "answer_tokens": ("answer tokens", "回答のトークン"),
    "first": ("time to first token", "最初のトークンまで"),
    "speed": ("tokens per second", "毎秒トークン数"),
    "ended": ("ended by", "終了理由"),
    "ended_stop": ("stop: it was complete", "完了"),
    "ended_length": ("length: it was cut at the longest answer", "最大の長さに達した"),
    "ended_cancelled": ("cancelled: it was stopped", "停止された"),
    "saving": ("Save and open", "保存と読み込み"),
    "save": ("Save this chat", "このチャットを保存"),
    "files": ("JSON opens here again; HTML is for reading", "JSONは再び開けます。HTMLは閲覧用です"),
    "open": ("Open a saved chat (JSON)", "保存したチャットを開く(JSON)"),
    "opened": ("The chat is open.", "チャットを開きました。"),
    "no_chat": ("There is nothing to save yet.", "保存するものがまだありません。"),
    "too_large": (
        "The JSON file is larger than this page takes ({n} MB; run.max_file_mb).",
        "JSONファイルはこのページで開ける大きさを超えています({n} MB、run.max_file_mb)。",
    ),
    "switched": ("This is now answered by: {name}", "使用中のモデル: {name}"),
    "tasks": ("Tasks", "タスク"),
    "task_caption": ("Caption", "説明文"),
    "task_vqa": ("Question", "質問"),
    "task_refer": ("Refer", "場所を探す"),
    "task_grounding": ("Grounding", "枠付き説明"),
    "task_detection": ("Detection", "物体検出"),
    "task_identify": ("Identify", "枠の中身"),
    "hint_caption": ("A short description of the picture.", "画像を短く説明します。"),
    "hint_vqa": ("Write a question about the picture; the answer is short.", "画像についての質問を書いてください。"),
    "hint_refer": (
        "Write what to look for, such as: the red circle. The answer is a box.",
        "探す物を書いてください(例: 赤い丸)。枠で答えます。",
    ),
    "hint_grounding": ("A description whose things have boxes.", "物に枠を付けて説明します。"),
    "hint_detection": ("Write the kinds of things to find.", "見つけたい物の種類を書いてください。"),
    "hint_identify": (
        "Draw a box on the picture (click two corners), then send.",
        "画像に枠を描き(二点をクリック)、送信してください。",
    ),
    "loading": ("The model is being opened: {name} ...", "モデルを開いています: {name} ..."),
    "forgotten": (
        "The server was started anew and has forgotten this chat. A new one begins here.",
        "サーバーが再起動し、このチャットの内容は失われました。新しいチャットを始めます。",
    ),
    "lost": (
        "The connection to the server was lost. When it is back, a new chat begins; what you are typing is kept.",
        "サーバーとの接続が切れました。復旧すると新しいチャットになります。入力中の文章は残ります。",
    ),
    "busy": (
        "Too many people are waiting for their answers. Please send your message again in a moment.",
        "多くの人が回答を待っています。少し後でもう一度送信してください。",
    ),
    "trouble": ("Error", "エラー"),
    "notice": ("Note", "お知らせ"),
    "no_words": ("(no words)", "(回答なし)"),
    "you": ("You", "あなた"),
    "assistant": ("Model", "モデル"),
}


def word(key: str, language: str, **values: object) -> str:
    """The word of a key in `en` or `ja`, its places filled with `values`."""
    return _WORDS[key][language == "ja"].format(**values) if values else _WORDS[key][language == "ja"]


def language_of(wished: str, accepted: str) -> str:
    """`en` or `ja`: what the settings wish, or for `auto` the first that a browser's Accept-Language names."""
    if wished != "auto":
        return wished
    first = accepted.split(",")[0].strip().lower()
    return "ja" if first.startswith("ja") else "en"
