"""The verbs of the command line, put together; importing them takes some tenths of a second."""

from __future__ import annotations

import cyclopts

from cmcr._version import __version__
from cmcr.cli.ablate import ablate
from cmcr.cli.compare import compare
from cmcr.cli.connect import connect
from cmcr.cli.demo import demo
from cmcr.cli.embed import embed
from cmcr.cli.encode import encode
from cmcr.cli.evaluate import evaluate
from cmcr.cli.import_ import import_
from cmcr.cli.index import index
from cmcr.cli.info import info
from cmcr.cli.memory import import_memory
from cmcr.cli.project import project
from cmcr.cli.search import search
from cmcr.cli.serve import serve
from cmcr.cli.verify import verify

# Lists take all words that follow (--image a.png b.png), flags have no --no-... form.
_EVERYWHERE = cyclopts.Parameter(consume_multiple=True, negative="")

app = cyclopts.App(
    name="cmcr",
    help="Connect frozen contrastive encoders without paired data.\n\nStart with: cmcr demo",
    version=__version__,
    suppress_keyboard_interrupt=False,  # main() reports it
    default_parameter=_EVERYWHERE,
)
memory = cyclopts.App(name="memory", help="Bring memories in and out.")
memory.command(import_memory, name="import")
for _verb in (
    ablate,
    compare,
    connect,
    demo,
    embed,
    encode,
    evaluate,
    index,
    info,
    project,
    search,
    serve,
    verify,
    memory,
):
    app.command(_verb)
app.command(import_, name="import")
app.register_install_completion_command(help="Let the shell complete words after cmcr (bash, zsh, fish, PowerShell).")
