"""Whole numbers as they are typed behind a flag, and what is said of those that will not do."""

from __future__ import annotations

import argparse


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def some(text: str) -> int:
    """A whole number of 1 or more."""
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def count(text: str) -> int:
    """A whole number of 0 or more."""
    value = _whole(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def port(text: str) -> int:
    """The number of a port; 0 = any free one."""
    value = _whole(text)
    if not 0 <= value < 65536:
        raise argparse.ArgumentTypeError(f"{text} is no port; ports go from 0 (any free one) to 65535")
    return value
