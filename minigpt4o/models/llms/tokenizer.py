"""Train a small byte-level BPE tokenizer on text files and keep it as a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from minigpt4o.common.errors import DataError

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>")  # ids 0, 1, 2, 3

# Words with their leading space, runs of at most three digits (so that coordinates always cut alike), other signs,
# blanks. Japanese writes no blanks: there each Han sign and each run of kana is a piece, so that a word is cut in the
# same way whatever stands beside it. Bytes follow, so any text in any script comes back exactly.
_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{Han}|\p{Hiragana}+|[\p{Katakana}ー]+"
    r"| ?[\p{L}&&[^\p{Han}\p{Hiragana}\p{Katakana}ー]]+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
_BYTES = 256


def train_tokenizer(
    files: Iterable[str | Path],
    out: str | Path,
    vocab_size: int = 512,
    special_tokens: Sequence[str] = SPECIAL_TOKENS,
    whole_words: Sequence[str] = (),
) -> Path:
    """Learn `vocab_size` tokens from UTF-8 text files, write the folder `out` and return it.

    The first special tokens must include <pad>, <s>, </s> and <unk>. `whole_words` become one token each, added to
    the vocabulary, but are ordinary text for everybody (`<Img>`). The same files give the same tokenizer.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    paths = [str(file) for file in files]
    missing = [path for path in paths if not Path(path).is_file()]
    if missing or not paths:
        raise DataError(f"the tokenizer's text file(s) do not exist: {', '.join(missing) or 'none was given'}")
    if not set(SPECIAL_TOKENS) <= set(special_tokens):
        raise DataError(f"special_tokens must include {', '.join(SPECIAL_TOKENS)}")
    if vocab_size < _BYTES + len(special_tokens):
        raise DataError(f"vocab_size {vocab_size} is below {_BYTES} bytes and {len(special_tokens)} special tokens")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train(paths, trainer)
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in whole_words])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
    wrapped.save_pretrained(str(out))
    return Path(out)
