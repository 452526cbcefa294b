"""From the bytes of a request to an answer that is being given; what is slow happens in threads beside the loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import PurePosixPath
from typing import Any

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.batch import Decoding
from minigpt4o.serve.api.errors import ApiError, closing, invalid, of_refusal
from minigpt4o.serve.api.fetch import Fetcher
from minigpt4o.serve.api.messages import Attached, Said, attachments, read_messages, refused, sample_of
from minigpt4o.serve.api.metrics import Metrics
from minigpt4o.serve.api.options import Options
from minigpt4o.serve.api.params import Asked, read_json, read_params
from minigpt4o.serve.chat import ChatSession
from minigpt4o.serve.engine import Answering, Engine
from minigpt4o.serve.limits import ChatError

READERS, FETCHERS = 4, 8  # threads


class Service:
    """One model and what its callers share. `session` lends its engine, limits and habits; its history stays empty."""

    def __init__(self, session: ChatSession, options: Options, name: str = "", fetcher: Fetcher | None = None) -> None:
        self.session, self.options = session, options
        self.engine = Engine(session.model, session.encoder, **{**asdict(session.engine.sizes), **options.sizes})
        self.name = options.model_name or name or "minigpt4o"
        self.fingerprint = f"fp_{self.engine.fingerprint[:12]}"
        self.created = int(time.time())
        self.metrics = Metrics()
        self.closing = False
        self.held = 0  # bytes of the bodies that are in memory
        most = round(session.limits.max_file_mb * 2**20)
        self.fetcher = fetcher or (Fetcher(most) if options.allow_urls else None)
        self._readers = ThreadPoolExecutor(READERS, "api-read")
        self._fetchers = ThreadPoolExecutor(FETCHERS, "api-fetch")

    async def begin(self, body: bytes) -> tuple[Asked, Answering]:
        """The answer to a body. Raises ApiError if it cannot be given."""
        if self.closing:
            raise closing()
        loop = asyncio.get_running_loop()
        try:
            asked, said = await loop.run_in_executor(self._readers, self._read, body)
            await self._fetch([file for file in attachments(said) if file.url])
            return asked, await loop.run_in_executor(self._readers, self._submit, asked, said)
        except (RuntimeError, asyncio.CancelledError) as error:
            if self.closing:  # meanwhile: the threads take nothing more, and let go of what waited for them
                raise closing() from error
            raise

    def close(self) -> None:
        """Answers that are being given end now; nobody can ask any more."""
        self.closing = True
        self.engine.close()
        for pool in (self._readers, self._fetchers):
            pool.shutdown(wait=False, cancel_futures=True)

    # ---- in threads ----

    def _read(self, body: bytes) -> tuple[Asked, list[Said]]:
        tree = read_json(body)
        asked = read_params(tree, self.name, self.session.decoding)
        return asked, read_messages(tree.get("messages"), self.session.limits)

    async def _fetch(self, files: Sequence[Attached]) -> None:
        if not files:
            return
        if self.fetcher is None:
            raise invalid(
                "This server fetches no addresses (its owner may allow it with --allow-urls); send the picture as a"
                " data URL.",
                files[0].where,
                "invalid_image_url",
            )
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(self._fetchers, self._fetch_one, file) for file in files))

    def _fetch_one(self, file: Attached) -> None:
        assert self.fetcher is not None
        try:
            file.data = self.fetcher.fetch(file.url)
        except ChatError as error:
            raise invalid(str(error), file.where, "invalid_image_url") from error

    def _submit(self, asked: Asked, said: Sequence[Said]) -> Answering:
        session = self.session
        for file in attachments(said):
            try:
                session.ensure_kind(file.kind, [file.media()])
            except ChatError as error:
                raise refused(file, error) from error
        sample = sample_of(said, session.separator, session.system)
        key = f"api:{asked.cache_key}" if asked.cache_key else ""
        try:
            decoding = self._fitting(asked.decoding, self.engine.places(sample.turns))
            return self.engine.submit(sample, decoding, stop=asked.stop, session=key)
        except ChatError as error:
            raise of_refusal(error) from error
        except SkipSample as problem:
            raise invalid("These messages cannot be used by this model.", "messages") from problem

    def _fitting(self, decoding: Decoding, places: int) -> Decoding:
        """The answer may fill what the prompt leaves of the context. Raises ApiError if that is nothing."""
        room = self.session.context - places + 1  # the last token needs no place of its own
        if room < 1:
            raise ApiError(
                400,
                f"These messages take {places} places of the model (pictures and sounds included), and it has"
                f" {self.session.context}; please shorten them or send fewer files.",
                param="messages",
                code="context_length_exceeded",
            )
        tokens = min(decoding.max_new_tokens, room)
        return replace(decoding, max_new_tokens=tokens, min_new_tokens=min(decoding.min_new_tokens, tokens))


def name_of(settings: Any) -> str:
    """What callers name the model if nobody has said it: the last part of its checkpoint's path, else its class."""
    checkpoint = PurePosixPath(str(settings.model.values.get("ckpt") or "").replace("\\", "/"))
    return checkpoint.stem if checkpoint.suffix in (".pth", ".safetensors") else checkpoint.name or settings.model.name
