"""Pictures in terminals that say that they show them: the inline images of kitty and of iTerm2."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

_SIDE = 96  # pixels of a thumbnail
_MOST = 10  # in a row
_CHUNK = 4096  # kitty takes no more at once


def protocol_of(environment: Mapping[str, str]) -> str | None:
    """Tell from the environment how the terminal takes pictures: "kitty", "iterm2" or not at all."""
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if term.startswith(("screen", "tmux")):  # pass on no pictures unless told to
        return None
    if "KITTY_WINDOW_ID" in environment or term in ("xterm-kitty", "xterm-ghostty"):
        return "kitty"
    return "iterm2" if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2" else None


def strip_of(pictures: Sequence[Path], protocol: str) -> str:
    """Put the first pictures in a row, in the words of a terminal; a picture that cannot be read leaves a gap."""
    from PIL import Image, ImageOps

    from cmcr.data.images import read_image
    from cmcr.errors import SampleError

    shown = pictures[:_MOST]
    strip = Image.new("RGB", (_SIDE * len(shown), _SIDE), "white")
    for place, path in enumerate(shown):
        try:
            picture = ImageOps.contain(read_image(path), (_SIDE - 4, _SIDE - 4))
        except SampleError:
            continue
        strip.paste(picture, (place * _SIDE, (_SIDE - picture.height) // 2))
    file = io.BytesIO()
    strip.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode("ascii")
    if protocol == "iterm2":
        return f"\x1b]1337;File=inline=1;size={file.tell()}:{data}\a\n"
    chunks = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
    heads = ["a=T,f=100,", *[""] * (len(chunks) - 1)]
    ends = [*[1] * (len(chunks) - 1), 0]
    return "".join(f"\x1b_G{h}m={m};{c}\x1b\\" for h, m, c in zip(heads, ends, chunks, strict=True)) + "\n"
