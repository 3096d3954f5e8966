"""The verbs of the command line, put together; importing them takes some tenths of a second."""

from __future__ import annotations

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
from cmcr.cli.verify import verify

app = cyclopts.App(
    name="cmcr",
    help="Connect frozen contrastive encoders without paired data.\n\nStart with: cmcr demo",
    version=__version__,
    suppress_keyboard_interrupt=False,  # main() says it in words
)
for _verb in (ablate, connect, demo, embed, encode, evaluate, info, verify):
    app.command(_verb)
app.command(import_, name="import")
app.command(memory)
