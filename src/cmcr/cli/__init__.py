"""The command line: one short file per verb, one place where errors become messages and exit codes."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cmcr.cli.stopping import terminated_like_ctrl_c
from cmcr.connection.interruption import held_back
from cmcr.errors import CmcrError, ConfigError, DeviceError, words_of

OK, FAILED, WRONG_CALL, INTERRUPTED = 0, 1, 2, 130


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
            _carry_out(tokens)
        sys.stdout.flush()  # here, where a closed pipe is met in silence
    except WrongCallError as error:
        return _report(tokens, "wrong call", str(error), WRONG_CALL)
    except (ConfigError, DeviceError) as error:
        return _report(tokens, type(error).__name__, str(error), WRONG_CALL)
    except CmcrError as error:
        return _report(tokens, type(error).__name__, words_of(error), FAILED)
    except BrokenPipeError:  # whoever read the output has stopped, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries again when it ends
        return FAILED
    except KeyboardInterrupt as error:
        # One that came while Python's exec was at work, as it is for dataclasses, leaves a mark by which Python would end
        # as if the signal had killed it, and not with our exit code. Another exec clears the mark.
        exec("")
        said = str(error) or "stopped; nothing half-written was left. Run it again."
        return _report(tokens, "interrupted", said, INTERRUPTED)
    return OK


class WrongCallError(CmcrError):
    """Words that no verb understands."""


def _carry_out(tokens: list[str]) -> None:
    """Find the verb and do it; all that takes long to import is imported only here, where signals have their message.

    They wait until it is imported: where they come in between, importlib loses them now and then, and torch aborts.

    Raises:
        WrongCallError: there is no such verb or option.
    """
    with held_back():
        import cyclopts

        from cmcr.cli.verbs import app
    try:
        verb, given, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        raise WrongCallError(f"{error}{_hint(error)} See: cmcr --help") from error
    if verb.__module__.startswith("cmcr."):  # the help and the version are cyclopts' own
        with held_back():
            import torch  # noqa: F401
    verb(*given.args, **given.kwargs)


def _hint(error: Exception) -> str:
    """Say that an unknown option is a setting, where a verb takes settings."""
    from cyclopts import UnknownOptionError

    if not isinstance(error, UnknownOptionError) or not {"connect", "ablate"} & set(error.command_chain or ()):
        return ""
    from cmcr.connection.settings import Settings

    name = str(error.token.keyword).removeprefix("--").replace("-", "_")
    return f" It is a setting: --set {name}=VALUE." if name in Settings.__dataclass_fields__ else ""


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show warnings that are meant for users as sentences, without a line of source code."""
    earlier = warnings.formatwarning

    def plain(message: Any, category: type[Warning], *rest: Any, **more: Any) -> str:
        return f"cmcr: {message}\n" if category is UserWarning else earlier(message, category, *rest, **more)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = earlier


def _report(tokens: list[str], kind: str, message: str, code: int) -> int:
    """Say what went wrong on standard error: as JSON if that was asked for, else as a sentence."""
    text = json.dumps({"error": kind, "message": message}) if "--json" in tokens else f"cmcr: {message}"
    print(text, file=sys.stderr, flush=True)
    return code
