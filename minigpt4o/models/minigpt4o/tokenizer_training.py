"""Train the byte-level BPE tokenizer of Minigpt4o on any text: exact round trips, each id where the model wants it."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigpt4o.common import files as disk
from minigpt4o.common.errors import DataError
from minigpt4o.models.minigpt4o.chat_template import CHAT_TEMPLATE
from minigpt4o.models.minigpt4o.configuration_minigpt4o import MEDIA_ROWS, VOCAB_SIZE, TokenLayout, token_layout
from minigpt4o.models.minigpt4o.tokenizer_counts import commonest_words, count_words
from minigpt4o.models.minigpt4o.tokenizer_merges import learn_merges

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger(__name__)

# The attribute of the tokenizer -> how the token is written; its id stands in TokenLayout.
SPECIAL_TOKENS = {
    "pad_token": "<pad>",
    "eos_token": "<eos>",
    "bos_token": "<bos>",
    "unk_token": "<unk>",
    "sot_token": "<start_of_turn>",
    "eot_token": "<end_of_turn>",
    "boi_token": "<start_of_image>",
    "boa_token": "<start_of_audio>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
    "eoa_token": "<end_of_audio>",
    "audio_token": "<audio_soft_token>",
}
_LAYOUT_NAMES = {"sot_token": "start_of_turn_token_id", "eot_token": "end_of_turn_token_id"}
_PLAIN_ROLES = ("pad_token", "eos_token", "bos_token", "unk_token")  # those every tokenizer of transformers knows

# Japanese and Chinese write no blanks: each run of one script is a piece, so that a word is cut alike whatever stands
# beside it. Else: words with the blank or sign before them, up to three digits, other signs, line ends, blanks.
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|\p{Han}{1,16}|[\p{Hiragana}ー]{1,16}|[\p{Katakana}ー]{1,24}"
    r"|[^\r\n\p{L}\p{M}\p{N}]?[[\p{L}\p{M}]&&[^\p{Han}\p{Hiragana}\p{Katakana}ー]]+"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LONGEST = 128  # bytes: longer pieces (base64, ruled lines) are written in tokens, but none are learned from them
MAX_WORDS = 5_000_000  # different words that merges are learned from, the commonest; about 2 GB while learning
BYTES = 256
MODEL_MAX_LENGTH = 32_768


def train_tokenizer(
    texts: Iterable[str | Path],
    out: str | Path,
    vocab_size: int = VOCAB_SIZE,
    media_rows: int = MEDIA_ROWS,
    *,
    field: str = "text",
    min_count: int = 2,
    max_words: int = MAX_WORDS,
) -> Path:
    """Learn a tokenizer of exactly `vocab_size` tokens, write the folder `out` and return it.

    Reads UTF-8 text (.txt or anything else), `field` of each line of .jsonl, and both with .gz behind. Words are
    counted in shards in `<out>.counts`, which a stopped run goes on from and a finished one removes. The same texts
    and sizes give the same bytes. Text too short for all merges leaves tokens `<unused0>`, ... that nothing writes.
    """
    paths, out = [Path(text) for text in texts], Path(out)
    layout = token_layout(vocab_size, media_rows)
    _check(paths, out, layout)
    work = out.parent / f"{out.name}.counts"
    count_words(paths, work, _cutter(), field=field, key=f"{PIECES} {LONGEST}")
    words = commonest_words(work, max_words, min_count)
    log.info("learning merges from %d different words", len(words))
    alphabet = byte_letters()
    room = layout.vision_vocab_offset - _first_free(layout)
    letters = _to_letters()
    tokens, merges = learn_merges(((letters(word), count) for word, count in words), alphabet, room, min_count)
    tokenizer = wrap(build(tokens, merges, layout), layout)
    _publish(tokenizer, out)
    shutil.rmtree(work)
    log.info("%s: %d tokens, %d merges learned", out, len(tokenizer), len(merges))
    return out


def _check(paths: Sequence[Path], out: Path, layout: TokenLayout) -> None:
    missing = [str(path) for path in paths if not path.is_file()]
    if missing or not paths:
        raise DataError(f"the tokenizer's text file(s) do not exist: {', '.join(missing) or 'none was given'}")
    least = _first_free(layout) + BYTES + 2 * layout.media_rows
    if layout.vocab_size < least:
        raise DataError(
            f"vocab_size {layout.vocab_size} is below {least}: {_first_free(layout)} special tokens, {BYTES} bytes and "
            f"2 x {layout.media_rows} media rows"
        )
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "tokenizer.json").is_file())):
        raise DataError(f"{out} exists and holds no tokenizer: give another folder")


def _first_free(layout: TokenLayout) -> int:
    """The id of the first byte: behind the special tokens that stand in front."""
    return layout.boa_token_id + 1


def byte_letters() -> list[str]:
    """The letters that stand for the 256 bytes, in the order of their code points."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _splitter() -> Any:
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Split(Regex(PIECES), behavior="isolated")


def _cutter() -> Any:
    """Text -> its pieces, save those too long to learn from."""
    cut = _splitter().pre_tokenize_str
    least = LONGEST // 4  # letters that may be too many bytes

    def pieces(text: str) -> Iterable[str]:
        return (piece for piece, _ in cut(text) if len(piece) <= least or len(piece.encode()) <= LONGEST)

    return pieces


def _to_letters() -> Any:
    """A word -> the letters of its bytes."""
    from tokenizers import pre_tokenizers

    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def letters(word: str) -> str:
        return "".join(part for part, _ in level.pre_tokenize_str(word))

    return letters


def special_ids(layout: TokenLayout) -> dict[str, int]:
    """Each special token, as it is written, and its id."""
    return {token: getattr(layout, _LAYOUT_NAMES.get(role, f"{role}_id")) for role, token in SPECIAL_TOKENS.items()}


def build(tokens: Sequence[str], merges: Sequence[tuple[str, str]], layout: TokenLayout) -> Any:
    """The `tokenizers.Tokenizer`: specials, bytes and merges, unused rows, picture rows, sound rows.

    Unused rows have names but are no special tokens: their names in a text are ordinary text.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    special = special_ids(layout)
    vocab = {token: i for i, token in enumerate(tokens, _first_free(layout))}
    learned = len(vocab) + _first_free(layout)
    vocab |= {f"<unused{i}>": learned + i for i in range(layout.vision_vocab_offset - learned)}
    for kind, offset in (("image", layout.vision_vocab_offset), ("audio", layout.audio_vocab_offset)):
        vocab |= {f"<unused_{kind}_{i}>": offset + i for i in range(2, layout.media_rows)}
    vocab |= special
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [_splitter(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    bos = SPECIAL_TOKENS["bos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, layout.bos_token_id)]
    )
    if sorted(vocab.values()) != list(range(layout.vocab_size)) or tokenizer.get_vocab_size() != layout.vocab_size:
        raise DataError(f"{tokenizer.get_vocab_size()} tokens do not fill the {layout.vocab_size} ids: learn fewer")
    return tokenizer


def wrap(tokenizer: Any, layout: TokenLayout) -> PreTrainedTokenizerFast:
    """The tokenizer of transformers, with names for its special tokens (`tokenizer.image_token_id`)."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{role: SPECIAL_TOKENS[role] for role in _PLAIN_ROLES},
        extra_special_tokens={role: token for role, token in SPECIAL_TOKENS.items() if role not in _PLAIN_ROLES},
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=MODEL_MAX_LENGTH,
    )


def _publish(tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the folder as a whole."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        disk.publish(out, {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())})
