"""Pictures to look at: where a way hears the sound, drawn over the picture, beside the boxes of people and the answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cmcr.errors import WriteError
from cmcr.evaluation.tasks.grounded import Answer, PreparedGrounded
from cmcr.evaluation.tasks.places import picture_of
from cmcr.evaluation.tasks.proposals import Boxes
from cmcr.evaluation.tasks.ways import Way

# Dark blue over grey to yellow: brightness rises evenly, and no pair of its colours needs red told from green.
_TABLE = np.array([(0, 32, 77), (60, 77, 110), (124, 123, 120), (188, 175, 111), (255, 234, 70)], dtype=np.float64)
_OVERLAY = 0.6  # share of the map's colour in a pixel, the rest is the picture in grey
_DRAWN, _ANSWERED, _CASING = (255, 255, 255), (255, 90, 30), (0, 0, 0)
_PAPER, _INK = (255, 255, 255), (20, 20, 20)
_LEAST_EDGE, _LARGEST_EDGE = 320, 480  # pixels of a panel's longer edge
_GAP, _LINE, _TEXT = 8, 18, 13  # pixels
_LEAST_WIDTH = 500  # pixels, so that the strip below has room under narrow pictures


def write_heatmaps(prepared: PreparedGrounded, way: Way, folder: Path, limit: int = 20) -> list[Path]:
    """Write one PNG for each of some items, spread evenly over all.

    Left the picture with the boxes that people drew (white) and the box answered (orange, dashed), right the map of
    cosines over the grey picture with the same boxes; each map runs from its own lowest (dark blue) to its own highest
    (yellow) cosine.

    Args:
        prepared: items of a localisation task.
        way: whose answers to draw.
        folder: made if need be; files of the same name are replaced.
        limit: the most items.

    Returns:
        the files, in the order of the items.

    Raises:
        SampleError: a picture can no longer be read.
        WriteError: a file cannot be written.
    """
    count = len(prepared.ids)
    items = np.unique(np.linspace(0, count - 1, min(limit, count)).round().astype(int)).tolist()
    written = []
    for answer in prepared.answers(way, items):
        drawn = draw_heatmap(
            picture_of(prepared.images[answer.item]), answer, prepared.boxes[answer.item], prepared.ids[answer.item]
        )
        path = folder / f"{answer.item:05d}-{_file_name(prepared.ids[answer.item])}.png"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            drawn.save(path)
        except OSError as error:
            raise WriteError(f"{path}: could not be written ({error}).") from error
        written.append(path)
    return written


def draw_heatmap(picture: Image.Image, answer: Answer, boxes: Boxes, name: str) -> Image.Image:
    """Draw one item: two panels, and a strip below with its name and its cIoU.

    Args:
        picture: in RGB.
        answer: for this item.
        boxes: what people drew, `(k, 4)`.
        name: of the item.
    """
    plain = _resized(picture)
    panels = [plain, overlaid(plain, answer.map)]
    for panel in panels:
        for box in boxes:
            _outline(panel, box, _DRAWN)
        _outline(panel, answer.box, _ANSWERED, dashed=True)
    width, height = max(plain.width * 2 + _GAP * 3, _LEAST_WIDTH), plain.height + _GAP * 2 + _LINE * 2
    sheet = Image.new("RGB", (width, height), _PAPER)
    for place, panel in enumerate(panels):
        sheet.paste(panel, (_GAP + place * (plain.width + _GAP), _GAP))
    _write_caption(sheet, plain.height + _GAP, name, answer)
    return sheet


def overlaid(picture: Image.Image, values: NDArray[np.floating]) -> Image.Image:
    """Lay a map over a picture in colours, the lowest value dark blue, the highest yellow; the picture turns grey."""
    low, high = float(values.min()), float(values.max())
    shares = (values - low) / (high - low) if high > low else np.zeros_like(values)
    map_image = Image.fromarray(colours(shares)).resize(picture.size, Image.Resampling.BILINEAR)
    return Image.blend(picture.convert("L").convert("RGB"), map_image, _OVERLAY)


def colours(shares: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Give the colours `(..., 3)` of values from 0 to 1."""
    places = np.linspace(0.0, 1.0, len(_TABLE))
    channels = [np.interp(shares, places, _TABLE[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def _resized(picture: Image.Image) -> Image.Image:
    """Bring a picture to a size to look at: small ones by whole factors, pixels left square; large ones made smaller."""
    longer = max(picture.size)
    if longer < _LEAST_EDGE:
        factor = -(-_LEAST_EDGE // longer)
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    share = min(1.0, _LARGEST_EDGE / longer)
    size = max(1, round(picture.width * share)), max(1, round(picture.height * share))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _outline(panel: Image.Image, box: NDArray[np.float64], colour: tuple[int, int, int], dashed: bool = False) -> None:
    """Outline a box inside the panel, cased in black so that it shows on any ground; dashed ones lie a little inside."""
    draw, inset = ImageDraw.Draw(panel), 5 if dashed else 1
    scale = np.array([panel.width, panel.height, panel.width, panel.height])
    left, top, right, bottom = np.rint(box * scale + np.array([1, 1, -1, -1]) * inset).astype(int).tolist()
    right, bottom = max(right, left + 1) - 1, max(bottom, top + 1) - 1
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    draw.line(corners, fill=_CASING, width=4)
    for start, end in pairwise(corners):
        for piece in _dashes(start, end) if dashed else [(start, end)]:
            draw.line(piece, fill=colour, width=2)


def _dashes(start: tuple[int, int], end: tuple[int, int]) -> Sequence[tuple[tuple[int, int], tuple[int, int]]]:
    """Cut a line into dashes of 8 pixels with 5 between them."""
    length = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)

    def at(pixels: int) -> tuple[int, int]:
        share = min(pixels / length, 1.0)
        return round(start[0] + share * (end[0] - start[0])), round(start[1] + share * (end[1] - start[1]))

    return [(at(place), at(place + 8)) for place in range(0, length, 13)]


def _write_caption(sheet: Image.Image, top: int, name: str, answer: Answer) -> None:
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT)
    figures = f"cIoU: box {answer.box_overlap:.2f}, map {answer.map_overlap:.2f}"
    room = sheet.width - 3 * _GAP - draw.textlength(figures, font=font)
    draw.text((_GAP, top + 4), _shortened(name, room, draw, font), fill=_INK, font=font)
    draw.text((sheet.width - _GAP, top + 4), figures, fill=_INK, font=font, anchor="ra")
    left = float(_GAP)
    for colour, dashed, word in ((_DRAWN, False, "drawn by people"), (_ANSWERED, True, "box answered")):
        middle, start = top + 4 + _LINE + _TEXT // 2 + 1, round(left)
        draw.line([(start, middle), (start + 33, middle)], fill=_CASING, width=4)
        for piece in (
            _dashes((start + 1, middle), (start + 32, middle))
            if dashed
            else [((start + 1, middle), (start + 32, middle))]
        ):
            draw.line(piece, fill=colour, width=2)
        draw.text((left + 38, top + 4 + _LINE), word, fill=_INK, font=font)
        left += 38 + draw.textlength(word, font=font) + 2 * _GAP
    _draw_scale(sheet, top + 5 + _LINE, answer, font)


def _draw_scale(
    sheet: Image.Image, top: int, answer: Answer, font: ImageFont.ImageFont | ImageFont.FreeTypeFont
) -> None:
    """Draw the colours from the lowest to the highest cosine of the map, with both written beside them."""
    draw, right = ImageDraw.Draw(sheet), sheet.width - _GAP
    high, low = f"{answer.map.max():.2f}", f"cosine {answer.map.min():.2f}"
    draw.text((right, top - 1), high, fill=_INK, font=font, anchor="ra")
    right -= round(draw.textlength(high, font=font)) + 4
    ramp = np.broadcast_to(colours(np.linspace(0, 1, 60)), (12, 60, 3))
    sheet.paste(Image.fromarray(np.ascontiguousarray(ramp)), (right - 60, top + 1))
    draw.text((right - 64, top - 1), low, fill=_INK, font=font, anchor="ra")


def _shortened(
    name: str, room: float, draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont
) -> str:
    if draw.textlength(name, font=font) <= room:
        return name
    while name and draw.textlength(f"{name}...", font=font) > room:
        name = name[:-1]
    return f"{name}..."


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)[-80:]
