"""The command line: one short file per verb, one place where errors become messages and exit codes."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cyclopts

from cmcr._version import __version__
from cmcr.cli.ablate import ablate
from cmcr.cli.connect import connect
from cmcr.cli.demo import demo
from cmcr.cli.embed import embed
from cmcr.cli.encode import encode
from cmcr.cli.evaluate import evaluate
from cmcr.cli.import_ import import_
from cmcr.cli.info import info
from cmcr.cli.memory import memory
from cmcr.cli.plan import plan
from cmcr.cli.run import run
from cmcr.cli.verify import verify
from cmcr.errors import CmcrError, ConfigError, words_of

OK, FAILED, WRONG_CALL, INTERRUPTED = 0, 1, 2, 130

app = cyclopts.App(
    name="cmcr",
    help="Connect frozen contrastive encoders without paired data.\n\nStart with: cmcr demo",
    version=__version__,
    suppress_keyboard_interrupt=False,  # main() says it in words
)
for _verb in (ablate, connect, demo, embed, encode, evaluate, info, plan, run, verify):
    app.command(_verb)
app.command(import_, name="import")
app.command(memory)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what follows the program's name; None takes the process's own.

    Returns:
        Exit code: 0 success, 1 a failure, 2 a wrong call, 130 interrupted.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _plain_warnings():
            app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()  # here, where a closed pipe is met in silence
    except cyclopts.CycloptsError as error:
        return _report(tokens, "wrong call", f"{error} See: cmcr --help", WRONG_CALL)
    except ConfigError as error:
        return _report(tokens, type(error).__name__, str(error), WRONG_CALL)
    except CmcrError as error:
        return _report(tokens, type(error).__name__, words_of(error), FAILED)
    except BrokenPipeError:  # whoever read the output has stopped, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries again when it ends
        return FAILED
    except KeyboardInterrupt as error:
        said = str(error) or "stopped; nothing half-written was left. Run it again."
        return _report(tokens, "interrupted", said, INTERRUPTED)
    return OK


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
    print(text, file=sys.stderr)
    return code
