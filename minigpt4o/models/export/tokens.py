"""A tokenizer that transformers alone opens and that cuts text as ours does; words for the places of media added."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

from minigpt4o.common.errors import ConfigError
from minigpt4o.models.export import sentencepiece_file as spm
from minigpt4o.models.llms.sentencepiece import SentencePieceTokenizer

log = logging.getLogger(__name__)

_BLANK = "▁"
# Texts that tokenizers disagree on: blanks, line ends, digits, bytes without a piece, special words, other writing.
PROBES = (
    "a  b",
    " hello",
    "hello ",
    "  two  blanks  ",
    "line\nline\n\n  indented",
    "3.14159 and 1,000,000",
    "<s>[INST] hi [/INST]",
    "###Human: what is it? ###Assistant: ",
    "{<10><20><50><90>}",
    "猫はどんな体勢をしていますか？",
    "𝔘𝔫𝔦 🦜 ﬁ ½ Ⅷ",
    "naïve café — “quoted”",
    "tab\there",
    "",
)


def portable(tokenizer: Any, marks: Sequence[str]) -> Any:
    """A `PreTrainedTokenizerFast` of its own, padding on the left, `marks` special words of it, no BOS put in front.

    The chat template writes BOS. Raises ConfigError if texts would get other ids than in training.
    """
    found = _of_sentencepiece(tokenizer) if isinstance(tokenizer, SentencePieceTokenizer) else _own_copy(tokenizer)
    wrong = first_difference(tokenizer, found, [*PROBES, *_own_probes(tokenizer)])
    if wrong is not None:
        raise ConfigError(
            f"the tokenizer cannot be written for transformers: {wrong[0]!r} is {wrong[1]} in training and would be "
            f"{wrong[2]}"
        )
    from tokenizers import AddedToken

    new = [AddedToken(mark, special=True, normalized=False) for mark in marks if mark not in found.get_vocab()]
    found.add_tokens(new, special_tokens=True)
    return found


def _own_probes(tokenizer: Any) -> list[str]:
    """Texts with the words that this tokenizer treats in a way of its own."""
    words = list(tokenizer.get_added_vocab())
    if isinstance(tokenizer, SentencePieceTokenizer):
        file = spm.read(tokenizer.sp.serialized_model_proto())
        words += [piece.text for piece in file.pieces if piece.type == spm.USER_DEFINED]
    return [f"a {word} b{word}c" for word in words]


def _own_copy(tokenizer: Any) -> Any:
    """The same tokenizer without what it puts around a text."""
    from transformers import PreTrainedTokenizerFast

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ConfigError(
            f"the tokenizer is a {type(tokenizer).__name__}, which has no form that transformers opens alone; use "
            "--as code"
        )
    inner = copy.deepcopy(backend)
    inner.no_padding()
    inner.no_truncation()
    return _wrapped(PreTrainedTokenizerFast, inner, tokenizer)


def _wrapped(kind: Any, inner: Any, tokenizer: Any) -> Any:
    """`inner` with the special words of `tokenizer`; nothing is put around a text."""
    from tokenizers.processors import TemplateProcessing

    inner.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    named = {name: getattr(tokenizer, name, None) for name in tokenizer.SPECIAL_TOKENS_ATTRIBUTES}
    words = {name: str(word) for name, word in named.items() if word is not None}
    split = {token.content for token in inner.get_added_tokens_decoder().values()}
    if words.get("pad_token") not in split:  # a word like any other: as a special one it would split texts
        words["pad_token"] = next((words[n] for n in ("eos_token", "unk_token") if words.get(n) in split), None) or ""
    words = {name: word for name, word in words.items() if word}
    return kind(tokenizer_object=inner, clean_up_tokenization_spaces=False, padding_side="left", **words)


# ---- SentencePiece ----


def _of_sentencepiece(tokenizer: SentencePieceTokenizer) -> Any:
    """SentencePiece's rules in the library that transformers' fast tokenizers use.

    Each stretch between special words is cut alone, with a blank in front (`legacy`), as `SentencePieceTokenizer` does.
    """
    from tokenizers import Tokenizer, decoders
    from transformers import PreTrainedTokenizerFast

    file = spm.read(tokenizer.sp.serialized_model_proto())
    inner = Tokenizer(_bpe(file) if file.model_type == spm.BPE else _unigram(file, tokenizer))
    inner.normalizer = _normalizer(file)
    steps = [decoders.Replace(_BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    inner.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if file.dummy_prefix else [])])
    _add_words(inner, file, tokenizer)
    return _wrapped(PreTrainedTokenizerFast, inner, tokenizer)


def _bpe(file: spm.SentencePieceFile) -> Any:
    from tokenizers.models import BPE

    vocab = {piece.text: i for i, piece in enumerate(file.pieces)}
    usable = {p.text for p in file.pieces if p.type == spm.NORMAL}
    merges = []
    for piece in file.pieces:
        if piece.type != spm.NORMAL:
            continue
        halves = [(piece.text[:i], piece.text[i:]) for i in range(1, len(piece.text))]
        known = [(a, b) for a, b in halves if a in usable and b in usable]
        merges += [(piece.score, a, b) for a, b in sorted(known, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))]
    merges.sort(key=lambda merge: -merge[0])
    unk = next((p.text for p in file.pieces if p.type == spm.UNKNOWN), None)
    return BPE(vocab, [(a, b) for _, a, b in merges], unk_token=unk, fuse_unk=True, byte_fallback=file.byte_fallback)


def _unigram(file: spm.SentencePieceFile, tokenizer: SentencePieceTokenizer) -> Any:
    from tokenizers.models import Unigram

    vocab = [(piece.text, piece.score) for piece in file.pieces]
    vocab += [(f"<extra_id_{i}>", 0.0) for i in reversed(range(tokenizer.extra_ids))]
    unk = next((i for i, piece in enumerate(file.pieces) if piece.type == spm.UNKNOWN), None)
    return Unigram(vocab, unk, file.byte_fallback)


def _normalizer(file: spm.SentencePieceFile) -> Any:
    from tokenizers import Regex, normalizers

    steps: list[Any] = [normalizers.Precompiled(file.charsmap)] if file.charsmap else []
    if file.squeeze:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if file.dummy_prefix:
        steps.append(normalizers.Prepend(_BLANK))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", _BLANK)])


def _add_words(inner: Any, file: spm.SentencePieceFile, tokenizer: SentencePieceTokenizer) -> None:
    """Words at which text is split, by id; those that SentencePiece itself keeps whole are looked for behind the
    blank that it puts in front."""
    from tokenizers import AddedToken

    known = {piece.text for piece in file.pieces}
    for _, token in sorted(tokenizer.added_tokens_decoder.items()):
        if token.special or token.content in known:
            inner.add_special_tokens([token])
        else:
            inner.add_tokens([token])
    listed = {token.content for token in tokenizer.added_tokens_decoder.values()}
    whole = [p.text for p in file.pieces if p.type == spm.USER_DEFINED and p.text not in listed]
    inner.add_tokens([AddedToken(word, normalized=True) for word in whole])


# ---- proof ----


def first_difference(ours: Any, theirs: Any, texts: Sequence[str]) -> tuple[str, list[int], list[int]] | None:
    """The first text that two tokenizers cut differently, with both lists of ids."""
    for text in texts:
        a, b = (list(t(text, add_special_tokens=False)["input_ids"]) for t in (ours, theirs))
        if a != b:
            return text, a, b
    return None
