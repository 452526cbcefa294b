"""The words of the toy world in English and Japanese: names, instructions and fixed phrases, as plain data."""

from __future__ import annotations

from minigpt4o.datasets.toy_world.world import COLOURS, COUNTS, KINDS, PLACES, SHAPES

LANGUAGES = ("en", "ja")


def _table(keys: tuple, words: str) -> dict:
    return dict(zip(keys, words.split("|"), strict=True))


# As they stand in a caption. Japanese colours are adjectives there and nouns in an answer.
NAMES: dict[str, dict] = {
    "en": {
        **_table(SHAPES, "circle|square|triangle|star|cross|ring"),
        **_table(COLOURS, "red|green|blue|yellow|purple|orange|black|pink"),
        **_table(PLACES, "top left|top|top right|left|middle|right|bottom left|bottom|bottom right"),
        **_table(KINDS, "beep|rising tone|falling tone|bell|buzz|hiss"),
        **{"small": "small", "big": "big", "low": "low", "high": "high"},
    },
    "ja": {
        **_table(SHAPES, "丸|四角|三角|星|十字|輪"),
        **_table(COLOURS, "赤い|緑の|青い|黄色い|紫の|オレンジの|黒い|ピンクの"),
        **_table(PLACES, "左上|上|右上|左|中央|右|左下|下|右下"),
        **_table(KINDS, "電子音|上昇音|下降音|ベルの音|ブザーの音|雑音"),
        **{"small": "小さい", "big": "大きい", "low": "低い", "high": "高い"},
    },
}
COLOUR_ANSWER = {"en": NAMES["en"], "ja": _table(COLOURS, "赤|緑|青|黄色|紫|オレンジ|黒|ピンク")}
OBJECTS = {"en": ("one", "two", "three", "four"), "ja": ("一つ", "二つ", "三つ", "四つ")}  # how many objects
TIMES = {  # how often a sound is heard, in a caption
    "en": dict(zip(COUNTS, ("once", "twice", "three times"), strict=True)),
    "ja": dict(zip(COUNTS, ("一回", "二回", "三回"), strict=True)),
}
TIMES_ANSWER = {"en": dict(zip(COUNTS, OBJECTS["en"], strict=False)), "ja": TIMES["ja"]}
YES_NO = {"en": ("yes", "no"), "ja": ("はい", "いいえ")}

# Instructions, as configurations should give them (`prompts`); {} is the question or the expression.
PROMPTS: dict[str, dict[str, list[str]]] = {
    "caption": {
        "en": ["describe the picture.", "what do you see in the picture?"],
        "ja": ["絵を説明して。", "絵には何が見えますか？"],
    },
    "audio_caption": {
        "en": ["describe the sound.", "what do you hear in the sound?"],
        "ja": ["音を説明して。", "音には何が聞こえますか？"],
    },
    "vqa": {"en": ["{}"], "ja": ["{}"]},
    "audio_qa": {"en": ["{}"], "ja": ["{}"]},
    "refer": {"en": ["[refer] {}", "[refer] give the box of {}"], "ja": ["[refer] {}", "[refer] {}の枠は？"]},
    "identify": {  # {} is a box
        "en": ["what is this? {}", "what is it? {}", "[identify] {}"],
        "ja": ["これは何ですか？ {}", "それは何ですか？ {}", "[identify] {}"],
    },
    "grounding": {
        "en": ["[grounding] describe the picture.", "[grounding] what do you see in the picture?"],
        "ja": ["[grounding] 絵を説明して。", "[grounding] 絵には何が見えますか？"],
    },
}

# Talk that needs neither picture nor sound: (question, answer).
SMALL_TALK: dict[str, list[tuple[str, str]]] = {
    "en": [
        ("hello!", "hello! show me a picture or a sound."),
        ("good morning.", "good morning! how can i help?"),
        ("thank you.", "you are welcome."),
        ("goodbye.", "goodbye!"),
        ("who are you?", "i am a small model of the toy world."),
        ("what can you do?", "i can look at pictures, listen to sounds and answer questions."),
        ("what colours do you know?", "red, green, blue, yellow, purple, orange, black and pink."),
        ("what shapes do you know?", "circle, square, triangle, star, cross and ring."),
        ("what sounds do you know?", "beep, rising tone, falling tone, bell, buzz and hiss."),
        ("what sizes do you know?", "small and big."),
        ("what languages do you speak?", "english and japanese."),
        ("where can an object be?", "at the top, at the bottom, at the left, at the right or in the middle."),
    ],
    "ja": [
        ("こんにちは。", "こんにちは。絵か音をください。"),
        ("おはよう。", "おはようございます。何を手伝いましょうか？"),
        ("ありがとう。", "どういたしまして。"),
        ("さようなら。", "さようなら。"),
        ("あなたは誰ですか？", "おもちゃの世界の小さいモデルです。"),
        ("何ができますか？", "絵を見て、音を聞いて、質問に答えます。"),
        ("どんな色を知っていますか？", "赤、緑、青、黄色、紫、オレンジ、黒、ピンクです。"),
        ("どんな形を知っていますか？", "丸、四角、三角、星、十字、輪です。"),
        ("どんな音を知っていますか？", "電子音、上昇音、下降音、ベルの音、ブザーの音、雑音です。"),
        ("どんな大きさを知っていますか？", "小さいと大きいです。"),
        ("何語を話しますか？", "英語と日本語です。"),
        ("物はどこにありますか？", "上、下、左、右、中央のどこかです。"),
    ],
}
