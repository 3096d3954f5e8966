"""The miniature world: three-digit numbers as pictures, sounds, texts and point clouds.

One thousand classes, 000 to 999. Pictures and point clouds are made of real handwritten digits, sounds of spoken
digits in many voices, texts of number words in several phrasings. Every function draws a batch from a
`numpy.random.Generator`, so the same seed gives the same items.
"""

from cmcr.data.numbers.pictures import draw_pictures
from cmcr.data.numbers.point_clouds import sample_point_clouds
from cmcr.data.numbers.sounds import SAMPLE_RATE_HZ, speak_sounds
from cmcr.data.numbers.splits import ALL_NUMBERS, SEEN_NUMBERS, UNSEEN_NUMBERS, Split, digits_of
from cmcr.data.numbers.texts import class_texts, write_texts

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
