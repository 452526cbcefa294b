"""Every way a run may end badly, each with the exit code and the sentence a person needs to mend it."""

from __future__ import annotations

# Process exit codes. 0 is success.
EXIT_CONFIG = 2
EXIT_DATA = 3
EXIT_CHECKPOINT = 4
EXIT_NON_FINITE = 5
EXIT_PREEMPTED = 75


class Minigpt4oError(ValueError):
    """Base of all errors meant for the user; `exit_code` is what the command line returns."""

    exit_code = 1


class ConfigError(Minigpt4oError):
    """The configuration cannot be run as written."""

    exit_code = EXIT_CONFIG


class DataError(Minigpt4oError):
    """Annotations or media are missing, empty or worse than the allowed share of bad samples."""

    exit_code = EXIT_DATA


class CheckpointError(Minigpt4oError):
    """A checkpoint is damaged, incomplete or belongs to another model or data set."""

    exit_code = EXIT_CHECKPOINT


class NonFiniteError(Minigpt4oError):
    """The loss or a gradient was not finite too many steps in a row."""

    exit_code = EXIT_NON_FINITE


class Preempted(Minigpt4oError):
    """The run was asked to stop, saved its state and ended in good order."""

    exit_code = EXIT_PREEMPTED


# The only reasons for which a sample may be left out. Reports count by these words.
SKIP_REASONS = frozenset(
    {
        "missing_file",
        "missing_member",
        "missing_field",
        "duplicate_key",
        "unreadable_image",
        "image_too_large",
        "extreme_aspect",
        "unreadable_audio",
        "short_audio",
        "audio_too_long",
        "forbidden_type",
        "bad_json",
        "bad_text",
        "bad_box",
        "no_target",
        "media_mismatch",
        "too_long",
        "read_error",
    }
)


class SkipSample(Exception):
    """One sample cannot be used. `reason` is one of SKIP_REASONS, `detail` names the file or row and what is wrong."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in SKIP_REASONS, f"unknown skip reason {reason!r}"
        super().__init__(reason, detail)  # both in args: the exception crosses process borders
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
