"""What goes wrong and what is noted, in the language of the page: English as it was raised, Japanese by its kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minigpt4o.serve.limits import ChatError, Note

# kind of a ChatError or Note -> the sentence; its places are the values of that kind
JAPANESE = {
    # files
    "no_file": "{name}: ファイルがありません。",
    "lost_file": "{name} を読み込めません。",
    "empty_file": "{name} は空のファイルです。",
    "large_file": "{name} は {n} MB あります。{most} MB 以下のファイルを送ってください。",
    "many_pixels": "{name} は {width} x {height} 画素あります。{most} 百万画素以下の画像を送ってください。",
    "bomb": "{name} の画素が多すぎます。{most} 百万画素以下の画像を送ってください。",
    "no_medium": "{name} は読み込める画像や音声ではありません({kinds})。",
    "long_sound": "{name} の長さは {n} 秒です。{most} 秒以下の音声を送ってください。",
    "many_files": "ファイルが {n} 個あります。一度に送れるのは {most} 個までです。",
    "full_chat": "このチャットのファイルは合計 {n} 個になり、上限の {most} 個を超えます。"
    "新しいチャットを始めてください。",
    "no_image": "{name} は読み込める画像ではありません。",
    "no_audio": "{name} は読み込める音声ではありません。",
    "model_no_image": "このモデルは画像を扱えません。画像なしで送ってください。",
    "model_no_audio": "このモデルは音声を扱えません。音声なしで送ってください。",
    "chat_no_image": "このチャットは画像を使う設定になっていません。",
    "chat_no_audio": "このチャットは音声を使う設定になっていません。",
    "unreadable_image": "画像を読み込めません({detail})。",
    "image_too_large": "画像が大きすぎます({detail})。",
    "extreme_aspect": "画像が細長すぎます({detail})。",
    "unreadable_audio": "音声を読み込めません({detail})。",
    "short_audio": "音声が短すぎます({detail})。",
    "audio_too_long": "音声が長すぎます({detail})。",
    "forbidden_type": "この種類のファイルは使えません({detail})。",
    "missing_file": "ファイルがありません({detail})。",
    "read_error": "ファイルを読み込めません({detail})。",
    "media_mismatch": "このモデルに合わないファイルです({detail})。",
    # words
    "empty_message": "メッセージを書くか、画像か音声を添付してください。",
    "long_text": "文章が {n} 文字あります。{most} 文字以下にしてください。",
    "broken_text": "壊れた文字が含まれています。入力し直してください。",
    "bad_text": "この文章は使えません({detail})。",
    "bad_box": "この枠は使えません({detail})。",
    "lost_box": "{n} 枚目の画像に枠がありますが、このチャットの画像は {most} 枚です。",
    "too_long": "長すぎます({detail})。",
    "long_prompt": "長すぎます。全体で {n} 個(うち画像と音声 {media} 個)ですが、モデルが読めるのは {most} 個までです。"
    "文章を短くするか、ファイルを減らしてください。",
    "no_room": "長すぎます。全体で {n} 個(うち画像と音声 {media} 個)ですが、空きは {most} 個です。短くしてください。",
    "no_room_for_files": "長すぎます。全体で {n} 個(うち画像と音声 {media} 個)ですが、空きは {most} 個です。"
    "新しいチャットを始めるか、ファイルを減らしてください。",
    "nothing_asked": "まだ何も質問していません。",
    "no_message": "このチャットに {n} 番目のメッセージはありません(全部で {most} 個)。",
    "bad_number": "{name} は {least} から {most} までの数にしてください。",
    "bad_settings": "この設定では続けられません({detail})。",
    # models
    "no_model": "そのモデルはありません。一覧から選んでください。",
    "models_busy": "ほかのモデルが回答中です。しばらくしてからもう一度お試しください。",
    "model_fails": "モデル {name} を開けません。理由はサーバーのログにあります。",
    "not_opened": "モデルを開く前に停止しました。",
    "closing": "モデルを終了しています。後でもう一度お越しください。",
    "busy": "{n} 件が順番を待っています。少し後でもう一度お試しください。",
    "no_memory": "メモリが足りません。新しいチャットを始めるか、送る量を減らしてください。",
    "failed": "回答を生成できませんでした。理由はサーバーのログにあります。",
    "unread": "メッセージを読み取れませんでした。理由はサーバーのログにあります。",
    # saved chats
    "large_saved": "保存したチャットは {most} MB まで開けます。",
    "large_chat": "チャットのファイルとしては大きすぎます({n} MB)。",
    "no_json": "保存したチャットではありません(JSON ではありません)。",
    "no_saved_chat": "保存したチャットではありません。",
    "other_version": "別の形式で保存されたチャットです(開ける版: {known})。",
    "damaged": "保存したチャットが壊れています({where})。",
    "large_inside": "保存したチャットの中に {most} MB を超えるファイルがあります。",
    "many_beams": "保存したチャットのビーム数は {n} ですが、上限は {most} です。",
    # notes
    "left_out": "チャットがモデルの読める長さを超えたため、古いやり取り {n} 回分の文章を省きました。",
    "files_kept": "その画像と音声は残しています。",
    "cut_sound": "モデルが聞ける長さを超えた {n} 秒分の音声を省きました。",
    "other_model": "別のモデルとのチャットです。続きはこのモデルが答えます。",
}


def told(one: ChatError | Note, language: str) -> str:
    """The sentence in `en` or `ja`; one of no known kind stays English."""
    sentence = JAPANESE.get(one.kind) if language == "ja" else None
    return str(one) if sentence is None else sentence.format(**one.values)
