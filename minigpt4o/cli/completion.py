"""What the shell needs to complete commands, actions and flags: a table made of the parsers themselves."""

from __future__ import annotations

import argparse

from minigpt4o.cli.listing import say

SCRIPT = """\
_minigpt4o() {
  local words
  case "${COMP_WORDS[1]} ${COMP_WORDS[2]}" in
%s
  esac
  if [ "$COMP_CWORD" -eq 1 ]; then words="%s"; fi
  COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -o bashdefault -F _minigpt4o minigpt4o"""
ZSH = "autoload -Uz bashcompinit && bashcompinit"


def completion(args: argparse.Namespace) -> int:
    """`completion [bash|zsh]`."""
    if args.shell == "zsh":
        say(ZSH)
    say(script())
    return 0


def script() -> str:
    """A function of bash; where no flag fits, names of files are offered."""
    from minigpt4o.cli.parser import build_parser

    _, commands = build_parser()
    rows = []
    for name, command in commands.items():
        actions = _actions(command)
        rows += [f'    "{name} {action}") words="{_flags(of)}";;' for action, of in actions.items()]
        rows.append(f'    "{name} "*) words="{" ".join(actions) or _flags(command)}";;')
    return SCRIPT % ("\n".join(rows), " ".join([*commands, "--help", "--version"]))


def _flags(parser: argparse.ArgumentParser) -> str:
    flags = (flag for action in parser._actions for flag in action.option_strings if action.help != argparse.SUPPRESS)
    return " ".join(flag for flag in flags if "_" not in flag)


def _actions(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}
