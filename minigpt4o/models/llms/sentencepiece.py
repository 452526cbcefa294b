"""A tokenizer whose ids are SentencePiece's own, behind transformers' interface.

Transformers 5 rebuilds Llama's and T5's tokenizers from their SentencePiece model in another library, and some texts
then get other ids than the models were trained on: `"a  b"`, `" hello"`, `"<s>[INST]"`. Here text goes through
SentencePiece itself. The rules around it are those of the slow tokenizers of transformers 4.30, with which MiniGPT-4
and MiniGPT-v2 were trained: text is split at special tokens, and each piece between two of them is cut alone, with the
blank that SentencePiece puts before a text (what later versions call `legacy`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import sentencepiece
from tokenizers import AddedToken
from transformers import PreTrainedTokenizer

from minigpt4o.common.files import write_bytes, write_json

Style = Literal["llama", "t5"]
FILES: dict[Style, str] = {"llama": "tokenizer.model", "t5": "spiece.model"}
CLASSES: dict[Style, str] = {"llama": "LlamaTokenizer", "t5": "T5Tokenizer"}
CONFIG_FILE = "tokenizer_config.json"


class SentencePieceTokenizer(PreTrainedTokenizer):
    """SentencePiece and the special tokens of one folder; `tokenizer_files.read_sentencepiece` makes it.

    `added` are the tokens at which text is split, by id: those of the SentencePiece model that are special (`<s>`) and
    those that follow its vocabulary. `style` llama puts BOS before and t5 EOS after a text unless one asks for
    `add_special_tokens=False`, and t5 has sentinels `<extra_id_0>` ... as the last words of its vocabulary.
    """

    vocab_files_names: dict[str, str] = {}  # noqa: RUF012 - the parent's; our files are written by save_pretrained

    def __init__(
        self,
        model: bytes,
        *,
        style: Style = "llama",
        added: Mapping[int, AddedToken] | None = None,
        add_bos: bool = True,
        add_eos: bool = False,
        extra_ids: int = 0,
        **values: Any,
    ) -> None:
        self.sp = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.style: Style = style
        self.extra_ids = extra_ids
        self._cuts: re.Pattern[str] | None = None
        words = [
            name for name, wanted in (("bos", add_bos), ("eos", add_eos)) if wanted and values.get(f"{name}_token")
        ]
        listed = {token.content for token in (added or {}).values()}
        later = {n: v for n, v in values.items() if n in self.SPECIAL_TOKENS_ATTRIBUTES and str(v) not in listed}
        super().__init__(
            added_tokens_decoder=dict(added or {}),
            special_tokens_pattern="_".join(words) or "none",
            token_type_ids_pattern="all_zeros",
            backend="sentencepiece",
            **{name: value for name, value in values.items() if name not in later},
        )
        for name, token in later.items():  # the parent would let text be split at them
            setattr(self, name, token)
        self._update_trie()

    # ---- words and ids ----

    @property
    def vocab_size(self) -> int:
        """Words of the SentencePiece model and sentinels; tokens added later are not counted."""
        return int(self.sp.get_piece_size()) + self.extra_ids

    def get_vocab(self) -> dict[str, int]:
        """Word -> id, of all there are."""
        pieces = self.sp.id_to_piece(list(range(self.sp.get_piece_size())))
        return {piece: i for i, piece in enumerate(pieces)} | self._added_tokens_encoder

    def _convert_token_to_id(self, token: str) -> int:
        return int(self.sp.piece_to_id(token))

    def _convert_id_to_token(self, index: int) -> str:
        """The word of an id; nothing for an id that no word has (rows of embeddings that only fill up a block)."""
        return str(self.sp.id_to_piece(index)) if 0 <= index < self.sp.get_piece_size() else ""

    def _add_tokens(self, new_tokens: Sequence[str | AddedToken], special_tokens: bool = False) -> int:
        """As in transformers 4.30: a plain string eats the blanks around it; a word that is there already stays one."""
        wanted = []
        for token in new_tokens:
            if not special_tokens and self._has(str(token)):
                continue
            if isinstance(token, str):
                token = AddedToken(token, lstrip=True, rstrip=True, normalized=False, special=special_tokens)
            wanted.append(token)
        return int(super()._add_tokens(wanted, special_tokens)) if wanted else 0

    def _has(self, word: str) -> bool:
        return word in self._added_tokens_encoder or self.sp.id_to_piece(self.sp.piece_to_id(word)) == word

    # ---- text to ids ----

    def _update_trie(self, unique_no_split_tokens: Sequence[str] | None = None) -> None:
        """Called by the parent whenever a token was added: the pattern that text is split by, longest token first."""
        words = {token.content for token in self._added_tokens_decoder.values()} | set(unique_no_split_tokens or [])
        ordered = sorted((word for word in words if word), key=len, reverse=True)
        self._cuts = re.compile("(" + "|".join(map(re.escape, ordered)) + ")") if ordered else None

    def tokenize(self, text: str, **options: Any) -> list[str]:
        """Words of a text; with `split_special_tokens` the special ones are cut like any other text."""
        if options.get("split_special_tokens", self.split_special_tokens) or self._cuts is None:
            return self._tokenize(text)
        pieces = self._cuts.split(text)  # text, token, text, token, ..., text
        for i in range(1, len(pieces), 2):
            token = self._added_tokens_decoder[self._added_tokens_encoder[pieces[i]]]
            if token.lstrip:
                pieces[i - 1] = pieces[i - 1].rstrip()
            if token.rstrip:
                pieces[i + 1] = pieces[i + 1].lstrip()
        words: list[str] = []
        for i, piece in enumerate(pieces):
            words += [piece] if i % 2 else self._tokenize(piece)
        return words

    def _tokenize(self, text: str, **options: Any) -> list[str]:
        if not text:
            return []
        try:
            return list(self.sp.encode(text, out_type=str))
        except RuntimeError:
            text.encode("utf-8")  # half a character (a lone surrogate) is no text: UnicodeEncodeError
            raise

    def build_inputs_with_special_tokens(self, ids: list[int], more: list[int] | None = None) -> list[int]:
        """BOS and EOS as the style wants them; t5 adds no second EOS."""
        if self.style == "t5" and self.special_tokens_pattern == "eos":
            rows = [row if row[-1:] == [self.eos_token_id] else [*row, self.eos_token_id] for row in (ids, more or [])]
            return rows[0] if more is None else rows[0] + rows[1]
        return list(super().build_inputs_with_special_tokens(ids, more))

    # ---- ids to text ----

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Words to text. SentencePiece drops the blank at the start of each stretch between special tokens."""
        specials = set(self.all_special_tokens)
        text, run, after_special = "", [], False
        for i, token in enumerate(tokens):
            if token not in specials:
                run.append(token)
                after_special = False
                continue
            if not after_special and (i or self.style == "t5"):
                text += " "
            text += self._joined(run) + token
            run, after_special = [], True
        text += self._joined(run)
        return text.strip() if self.style == "t5" else text

    def _joined(self, pieces: Sequence[str]) -> str:
        return str(self.sp.decode([piece for piece in pieces if piece]))

    def _decode(
        self,
        token_ids: int | Sequence[int],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        spaces_between_special_tokens: bool = True,
        **options: Any,
    ) -> str:
        ids = [token_ids] if isinstance(token_ids, int) else list(token_ids)
        words = self.convert_ids_to_tokens(ids, skip_special_tokens=skip_special_tokens)
        parts: list[str | list[str]] = []  # tokens added to the vocabulary stand alone, a blank around them
        for word in words:
            if self._added_tokens_encoder.get(word, -1) >= self.vocab_size:
                parts.append(word)
            elif parts and isinstance(parts[-1], list):
                parts[-1].append(word)
            else:
                parts.append([word])
        texts = [part if isinstance(part, str) else self.convert_tokens_to_string(part) for part in parts]
        text = (" " if spaces_between_special_tokens else "").join(texts)
        clean = (
            self.clean_up_tokenization_spaces if clean_up_tokenization_spaces is None else clean_up_tokenization_spaces
        )
        return str(self.clean_up_tokenization(text)) if clean else text

    # ---- files ----

    def save_pretrained(self, save_directory: str | Path, *args: Any, **options: Any) -> tuple[str, ...]:
        """Write the SentencePiece model and tokenizer_config.json, which other programs read too."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / FILES[self.style], self.sp.serialized_model_proto())
        write_json(folder / CONFIG_FILE, self.settings())
        return str(folder / FILES[self.style]), str(folder / CONFIG_FILE)

    def settings(self) -> dict[str, Any]:
        """What tokenizer_config.json says."""
        words = self.special_tokens_pattern.split("_")
        values: dict[str, Any] = {
            "tokenizer_class": CLASSES[self.style],
            "legacy": True,
            "add_bos_token": "bos" in words,
            "add_eos_token": "eos" in words,
            "clean_up_tokenization_spaces": self.clean_up_tokenization_spaces,
            "model_max_length": self.model_max_length,
            "added_tokens_decoder": {str(i): _flags(t) for i, t in self.added_tokens_decoder.items()},
        }
        if self.style == "t5":
            values["extra_ids"] = self.extra_ids
        if self.chat_template:
            values["chat_template"] = self.chat_template
        if self.extra_special_tokens:
            values["additional_special_tokens"] = [str(token) for token in self.extra_special_tokens]
        return values | dict(self.special_tokens_map_named())

    def special_tokens_map_named(self) -> dict[str, str]:
        """`bos_token` and its like -> the token, of those that are set."""
        found = {name: getattr(self, name) for name in self.SPECIAL_TOKENS_ATTRIBUTES}
        return {name: str(token) for name, token in found.items() if token is not None}


def _flags(token: AddedToken) -> dict[str, Any]:
    names = ("content", "lstrip", "rstrip", "normalized", "single_word", "special")
    return {name: getattr(token, name) for name in names}
