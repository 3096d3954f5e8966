"""The command line: one short file per verb, one place where errors become messages and exit codes."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cmcr.cli.signals import terminated_like_ctrl_c
from cmcr.errors import CmcrError, ConfigError, DeviceError, MissingDependencyError, PoorInputWarning, words_of
from cmcr.interruption import held_back
from cmcr.terminal import plain_lines

OK, FAILED, WRONG_CALL, INTERRUPTED = 0, 1, 2, 130


class WrongCallError(CmcrError):
    """Words that no verb understands."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what follows the program's name; None takes the process's own.

    Returns:
        Exit code: 0 success, 1 a failure, 2 a wrong call, 130 interrupted.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with terminated_like_ctrl_c(), _plain_warnings():
            _run(tokens)
        sys.stdout.flush()  # here, where a closed pipe is caught
    except WrongCallError as error:
        return _report(tokens, "wrong call", str(error), WRONG_CALL)
    except (ConfigError, DeviceError) as error:
        return _report(tokens, type(error).__name__, str(error), WRONG_CALL)
    except CmcrError as error:
        return _report(tokens, type(error).__name__, words_of(error), FAILED)
    except BrokenPipeError:  # whoever read the output has stopped, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries to flush again at exit
        return FAILED
    except KeyboardInterrupt as error:
        # An interrupt raised inside exec(), which dataclasses call, marks the interpreter: at exit it would die of the signal
        # instead of returning our exit code. Another exec clears the mark.
        exec("")
        message = str(error) or "stopped; nothing half-written was left. Run it again."
        return _report(tokens, "interrupted", message, INTERRUPTED)
    return OK


def _run(tokens: list[str]) -> None:
    """Parse the words and call the verb. Slow imports happen here, with signals held back.

    An interrupt inside an import is lost by importlib now and then, and makes torch abort.

    Raises:
        WrongCallError: there is no such verb or option.
        MissingDependencyError: torch cannot be imported.
    """
    with held_back():
        import cyclopts

        from cmcr.cli.verbs import app
    try:
        verb, given, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        hint = (
            " Settings of the method are given by --set NAME=VALUE." if {"connect", "ablate"} & set(tokens[:1]) else ""
        )
        known = [word for word in tokens[:1] if word in app]
        raise WrongCallError(f"{_words_of(error)}{hint} See: {' '.join(['cmcr', *known])} --help") from error
    if verb.__module__.startswith("cmcr."):  # --help and --version are cyclopts' own and need no torch
        with held_back():
            try:
                import torch
            except (ImportError, OSError) as error:  # the latter where a library of CUDA is missing
                raise MissingDependencyError(
                    f"torch cannot be imported ({error}). Install the build for your machine (see pytorch.org), such as: "
                    "pip install torch"
                ) from error

            from cmcr.engine.device import cores
        torch.set_num_threads(min(torch.get_num_threads(), cores()))  # a container's limit counts
    verb(*given.args, **given.kwargs)


def _words_of(error: Exception) -> str:
    """Put a wrong call in words; words too many are most often a pattern that the shell has expanded."""
    from cyclopts import UnusedCliTokensError

    if type(error) is not UnusedCliTokensError:
        return str(error)
    unused = error.unused_tokens or ["none"]
    return (
        f"{len(unused)} word(s) too many, the first is {unused[0]!r}. Quote a pattern ('*.jpg'), or the shell puts all its "
        "files in its place."
    )


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show warnings that are meant for users as sentences, without a line of source code."""
    earlier = warnings.formatwarning

    def sentence(message: Any, category: type[Warning], *rest: Any, **more: Any) -> str:
        ours = category in (UserWarning, PoorInputWarning)
        return plain_lines(f"cmcr: {message}" if ours else earlier(message, category, *rest, **more).rstrip()) + "\n"

    warnings.formatwarning = sentence
    try:
        yield
    finally:
        warnings.formatwarning = earlier


def _report(tokens: list[str], kind: str, message: str, code: int) -> int:
    """Print an error on standard error, as JSON if that was asked for, and return the exit code."""
    as_json = "--json" in tokens
    print(
        json.dumps({"error": kind, "message": message}) if as_json else plain_lines(f"cmcr: {message}"),
        file=sys.stderr,
        flush=True,
    )
    return code
