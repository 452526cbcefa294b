"""Open the tokenizer of a folder or hub name: SentencePiece's own ids for Llama's and T5's, transformers for others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.source import nearest

if TYPE_CHECKING:
    from tokenizers import AddedToken

    from minigpt4o.models.llms.sentencepiece import SentencePieceTokenizer, Style

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
KEY = "model.llm.tokenizer"

_STYLES: dict[str, Style] = {
    "LlamaTokenizer": "llama",
    "LlamaTokenizerFast": "llama",
    "LLaMATokenizer": "llama",  # so spelled in the first conversions
    "T5Tokenizer": "t5",
    "T5TokenizerFast": "t5",
}
_MODELS: dict[str, Style] = {"tokenizer.model": "llama", "spiece.model": "t5"}  # file name -> whose it is
_CONFIG, _MAP, _ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
_T5_SENTINELS = 100  # transformers' T5Tokenizer has so many unless its file says otherwise

Kind = Literal["auto", "transformers", "sentencepiece"]


def load_tokenizer(source: str, kind: Kind = "auto", pad_token: str = "") -> Any:
    """A tokenizer with a pad token, from a folder, a SentencePiece file or a hub name.

    `auto` takes SentencePiece where the folder has its model and is Llama's or T5's (or says nothing else).
    `pad_token` must be a word of the vocabulary; it is not looked for in text.
    """
    from minigpt4o.common.weight_files import locate

    here = locate(source)
    local = here is not None
    source = source if here is None else str(here)
    if not local and not HUB_NAME.fullmatch(source):
        raise ConfigError(f"{KEY}: folder {source} does not exist")
    forced = kind == "sentencepiece"
    folder = Path(source) if local or kind == "transformers" else _hub_folder(source, forced)
    found = None if kind == "transformers" else sentencepiece_model(folder, forced)
    if found is not None:
        tokenizer: Any = read_sentencepiece(*found)
    elif forced:
        raise ConfigError(f"{KEY}: {source} has no SentencePiece model ({' or '.join(_MODELS)})")
    else:
        tokenizer = _of_transformers(source, local)
    _pad(tokenizer, pad_token)
    return tokenizer


def _of_transformers(source: str, local: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source, local_files_only=local, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{KEY}: {source} cannot be loaded: {error}") from error


def _hub_folder(name: str, forced: bool) -> Path:
    """Where the hub's files of a SentencePiece tokenizer lie after they were fetched; no folder if it is not one."""
    from transformers.utils import cached_file

    def fetch(file: str) -> Path | None:
        try:
            found = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
        except OSError as error:
            raise ConfigError(f"{KEY}: {name} cannot be loaded: {error}") from error
        return Path(found) if found else None

    config = fetch(_CONFIG)
    said = _json(config).get("tokenizer_class") if config else None
    style = _STYLES.get(str(said))
    if said and style is None and not forced:
        return Path(name)
    wanted = [file for file, whose in _MODELS.items() if style in (None, whose)]
    model = next((found for file in wanted if (found := fetch(file))), None)
    if model is None:
        return Path(name)
    for file in (_MAP, _ADDED, *(() if said else ("tokenizer.json",))):
        fetch(file)
    return model.parent


def _pad(tokenizer: Any, pad_token: str) -> None:
    if pad_token:
        at = tokenizer.convert_tokens_to_ids(pad_token)
        if at is None or (at == tokenizer.unk_token_id and pad_token != tokenizer.unk_token):
            hint = nearest(pad_token, tokenizer.get_vocab()) or ["no word is like it"]
            raise ConfigError(
                f"model.llm.pad_token: {pad_token!r} is no word of the tokenizer; nearest: {', '.join(hint)}"
            )
        tokenizer.pad_token = pad_token  # an attribute only: text that holds it is cut as before
    elif tokenizer.pad_token_id is None:  # never learned and never attended to, so any known token will do
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token


# ---- SentencePiece ----


def sentencepiece_model(folder: Path, forced: bool = False) -> tuple[Path, Style] | None:
    """The SentencePiece file of a folder (or the file itself) and whose habits it has; None if it is for transformers.

    `forced` takes the file whatever else the folder says.
    """
    if folder.is_file():
        return (folder, _MODELS.get(folder.name, "llama")) if folder.suffix == ".model" else None
    file = next((folder / name for name in _MODELS if (folder / name).is_file()), None)
    if file is None:
        return None
    said = _json(folder / _CONFIG).get("tokenizer_class")
    style = _STYLES.get(str(said)) if said else None
    silent = not said and not (folder / "tokenizer.json").is_file()
    return (file, style or _MODELS[file.name]) if style or silent or forced else None


def read_sentencepiece(file: Path, style: Style) -> SentencePieceTokenizer:
    """The tokenizer of a SentencePiece file; special tokens from the JSON files beside it, else from the model."""
    import sentencepiece

    from minigpt4o.models.llms.sentencepiece import SentencePieceTokenizer

    try:
        model = file.read_bytes()
        sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"{KEY}: {file} is not a SentencePiece model: {error}") from error
    config = _json(file.parent / _CONFIG)
    extra_ids = int(config.get("extra_ids", _T5_SENTINELS if config else 0)) if style == "t5" else 0
    specials, more = _specials(sp, config, _json(file.parent / _MAP), style)
    sentinels = {f"<extra_id_{i}>": sp.get_piece_size() + extra_ids - 1 - i for i in range(extra_ids)}
    more += [_token(name, strips=True) for name in sentinels if name not in {t.content for t in more}]
    listed = {int(i): _token(value) for i, value in (config.get("added_tokens_decoder") or {}).items()}
    ids: dict[str, int] = {**_json(file.parent / _ADDED), **sentinels}
    added = _placed(sp, listed, ids, [*specials.values(), *more], sp.get_piece_size() + extra_ids)
    kept = ("model_max_length", "padding_side", "chat_template", "clean_up_tokenization_spaces")
    values = {key: config[key] for key in kept if config.get(key) is not None}
    if style == "t5":
        values.setdefault("clean_up_tokenization_spaces", True)
    return SentencePieceTokenizer(
        model,
        style=style,
        added=added,
        add_bos=bool(config.get("add_bos_token", style == "llama")),
        add_eos=bool(config.get("add_eos_token", style == "t5")),
        extra_ids=extra_ids,
        **specials,
        extra_special_tokens=more,
        **values,
    )


def _specials(
    sp: Any, config: Mapping[str, Any], mapped: Mapping[str, Any], style: Style
) -> tuple[dict[str, AddedToken], list[AddedToken]]:
    """Named special tokens (`bos_token`, ...) and further ones.

    The map wins over the configuration, as in transformers 4.30, and a token given as a plain string eats the blanks
    around it there, except where Llama's class itself wrapped it.
    """
    own = {"bos_token": sp.bos_id(), "eos_token": sp.eos_id(), "unk_token": sp.unk_id(), "pad_token": sp.pad_id()}
    default = {name: sp.id_to_piece(at) for name, at in own.items() if at >= 0}
    if config.get("tokenizer_class"):  # the class then knows its words by name
        default = _OF_CLASS[style]
    named: dict[str, AddedToken] = {}
    for name in _NAMED:
        if _content(mapped.get(name)):
            named[name] = _token(mapped[name], strips=True)
        elif _content(config.get(name)):
            named[name] = _token(config[name], strips=style != "llama" or name not in own)
        elif name in default:
            named[name] = _token(default[name], strips=style == "t5")
    lists = (source.get(key) for source in (mapped, config) for key in _EXTRA)
    extra: Iterable[Any] = next((value for value in lists if isinstance(value, list) and value), [])
    return named, [_token(value, strips=True) for value in extra if _content(value)]


_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")  # gets ids so
_EXTRA = ("additional_special_tokens", "extra_special_tokens")
_OF_CLASS: dict[Style, dict[str, str]] = {
    "llama": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "t5": {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
}


def _placed(
    sp: Any, listed: dict[int, AddedToken], ids: Mapping[str, int], specials: list[AddedToken], size: int
) -> dict[int, AddedToken]:
    """Id -> token of everything that text is split at.

    `listed` (tokenizer_config.json of later transformers) is complete: a special token of the vocabulary that is not in
    it, as a pad token chosen afterwards, is not looked for in text. Tokens without an id follow the vocabulary.
    """
    placed = dict(listed)
    taken = {token.content for token in placed.values()}
    by_word = {token.content: token for token in specials}
    for word, at in ids.items():
        if word not in taken:
            placed[int(at)] = by_word.get(word) or _token(word, strips=True, special=False)
            taken.add(word)
    for token in specials:
        if token.content in taken:
            continue
        at = sp.piece_to_id(token.content)
        if sp.id_to_piece(at) != token.content:
            at = max([size - 1, *placed]) + 1
        elif listed:
            continue
        placed[at] = token
        taken.add(token.content)
    return placed


def _content(value: Any) -> str:
    return str((value.get("content") if isinstance(value, dict) else value) or "")


def _token(value: Any, strips: bool = False, special: bool = True) -> AddedToken:
    """A token from a JSON value: a string, or a mapping with its own flags."""
    from tokenizers import AddedToken

    if isinstance(value, dict):
        flags = {key: bool(value.get(key, False)) for key in ("lstrip", "rstrip", "normalized", "single_word")}
        return AddedToken(_content(value), special=bool(value.get("special", True)), **flags)
    return AddedToken(str(value), lstrip=strips, rstrip=strips, normalized=False, special=special)


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{KEY}: {file} cannot be read: {error}") from error
    return value if isinstance(value, dict) else {}
