"""The miniature world: three-digit numbers as pictures, sounds, texts and point clouds.

One thousand classes, 000 to 999. Pictures and point clouds are made of real handwritten digits, sounds of spoken
digits in many voices, texts of number words in several phrasings. Every function draws a batch from a
`numpy.random.Generator`, so the same seed gives the same items.
"""

from cmcr.data.numbers.handwriting import (
    ALL_NUMBERS,
    SEEN_NUMBERS,
    UNSEEN_NUMBERS,
    Split,
    digits_of,
    draw_pictures,
    sample_point_clouds,
)
from cmcr.data.numbers.words import SAMPLE_RATE_HZ, class_texts, speak_sounds, write_texts

__all__ = [
    "ALL_NUMBERS",
    "SAMPLE_RATE_HZ",
    "SEEN_NUMBERS",
    "UNSEEN_NUMBERS",
    "Split",
    "class_texts",
    "digits_of",
    "draw_pictures",
    "sample_point_clouds",
    "speak_sounds",
    "write_texts",
]
