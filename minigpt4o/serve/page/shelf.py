"""The models that visitors may switch between: opened when first asked, only so many held at once."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from minigpt4o.common.errors import Minigpt4oError
from minigpt4o.serve.chat import ChatSession
from minigpt4o.serve.limits import ChatError

if TYPE_CHECKING:
    from minigpt4o.common.config import Settings

log = logging.getLogger(__name__)
_PATIENCE = 120.0  # seconds to wait until nobody is being answered by a model that has to go


class Sleeper(Protocol):
    """Who has a conversation with a model of the shelf."""

    label: str

    def sleep(self) -> None:
        """Let go of the model, keep what was said."""


class _Opening:
    """A model that is being opened, for those who wait for it."""

    failed = False


class Shelf:
    """Labels and how to open them. Safe to use from any thread."""

    def __init__(self, makers: Mapping[str, Callable[[], ChatSession]], most: int = 1) -> None:
        self.makers, self.most = dict(makers), max(most, 1)
        self._open: OrderedDict[str, ChatSession] = OrderedDict()  # the least lately used first
        self._opening: dict[str, _Opening] = {}
        self._held: Counter[str] = Counter()  # who waits for each, or is being answered by it
        self._changed = threading.Condition(threading.RLock())
        self._visitors: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def labels(self) -> list[str]:
        return list(self.makers)

    def put(self, label: str, session: ChatSession) -> None:
        """A model that is open already."""
        with self._changed:
            self._open[label] = session

    def know(self, visitor: Sleeper) -> None:
        """Tell this visitor when their model has to go."""
        self._visitors.add(visitor)

    @contextmanager
    def hold(self, label: str, given_up: Callable[[], bool] = lambda: False) -> Iterator[ChatSession]:
        """A session of the model, which stays open meanwhile. Raises ChatError if it cannot be opened.

        `given_up` tells whether the caller has stopped waiting for it; `wake` has it asked again.
        """
        with self._changed:
            self._held[label] += 1
        try:
            with self._changed:
                self._await(label, given_up)
                session = self._open[label]
            yield session
        finally:
            with self._changed:
                self._held[label] -= 1
                self._changed.notify_all()

    def wake(self) -> None:
        """Have those who wait look again whether they still want to."""
        with self._changed:
            self._changed.notify_all()

    def is_open(self, label: str) -> bool:
        """Whether the model answers at once."""
        with self._changed:
            return label in self._open

    def _await(self, label: str, given_up: Callable[[], bool]) -> None:
        """Wait until the model is open; begin to open it when there is room for it and nobody else has."""
        if label not in self.makers:
            raise ChatError("There is no such model here; please choose one of the list.", "no_model")
        opening = None
        while label not in self._open:
            if given_up():
                raise ChatError("It was stopped before the model was open.", "not_opened")
            if opening is not None and opening.failed:
                told = f"The model {label} cannot be opened; the reason is in the log of the server."
                raise ChatError(told, "model_fails", name=label)
            opening, patience = self._opening.get(label), None
            if opening is None and len(self._open) + len(self._opening) < self.most:
                opening = self._opening[label] = _Opening()
                threading.Thread(target=self._make, args=(label, opening), name="open-model", daemon=True).start()
            elif opening is None:
                idle = [name for name in self._open if not self._held[name]]
                if idle:
                    self._close(idle[0])
                    continue
                patience = _PATIENCE
            if not self._changed.wait(patience):
                raise ChatError("Other models are busy answering; please try again in a while.", "models_busy")
        self._open.move_to_end(label)

    def _make(self, label: str, opening: _Opening) -> None:
        """Open a model, which may take minutes: in a thread of its own, so that whoever waits for it can go."""
        session = None
        try:
            session = self.makers[label]()
        except Minigpt4oError as error:
            log.error("the model %r cannot be opened: %s", label, error)
        except Exception:  # whatever a foreign file may cause: the page lives on
            log.exception("the model %r cannot be opened", label)
        finally:
            with self._changed:
                del self._opening[label]
                if session is not None:
                    self._open[label] = session
                opening.failed = session is None
                self._changed.notify_all()

    def _close(self, label: str) -> None:
        session = self._open.pop(label)
        for visitor in list(self._visitors):
            if visitor.label == label:
                visitor.sleep()
        session.engine.close()
        del session
        gc.collect()
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def makers_of(settings: Settings, config: Any) -> dict[str, Callable[[], ChatSession]]:
    """The model of the YAML under the page's title, then those of `run.models`."""

    def own() -> ChatSession:
        from minigpt4o.serve.inference import load_chat

        return load_chat(settings)

    makers: dict[str, Callable[[], ChatSession]] = {config.title: own}
    for label, place in config.models.items():
        makers[label] = _maker(settings, config, str(place))
    return makers


def _maker(settings: Settings, config: Any, place: str) -> Callable[[], ChatSession]:
    """Opens a YAML or the folder of a run with its own model, or a bare checkpoint in the page's model."""

    def make() -> ChatSession:
        from minigpt4o.serve.inference import chat_config, open_chat
        from minigpt4o.serve.opening import Source, build, source_of_path

        path = Path(place)
        if path.is_dir() or path.suffix in (".yaml", ".yml"):
            source = source_of_path(path, None, [], "")
        else:
            chosen = replace(settings.model, values={**settings.model.values, "ckpt": place})
            source = Source(replace(settings, model=chosen))
        of_model = chat_config(source.settings)
        names = ("vis_processor", "audio_processor", "separator", "system", "context")
        own = replace(config, **{name: getattr(of_model, name) for name in names})
        return open_chat(build(source, config.device), own)

    return make
