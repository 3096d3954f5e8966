"""The miniature world: what is kept apart, and that a seed fixes every item."""

import io
import signal

import numpy as np
import pytest

from cmcr.data import numbers
from cmcr.data.numbers import (
    ALL_NUMBERS,
    SEEN_NUMBERS,
    UNSEEN_NUMBERS,
    class_texts,
    digits_of,
    draw_pictures,
    handwriting,
    sample_point_clouds,
    speak_sounds,
    voices,
    write_texts,
)

NUMBERS = np.array([7, 407, 980])


def test_two_hundred_numbers_are_unseen_and_every_digit_is_as_frequent_in_every_place():
    assert sorted([*SEEN_NUMBERS, *UNSEEN_NUMBERS]) == ALL_NUMBERS.tolist()
    assert digits_of(NUMBERS).tolist() == [[0, 0, 7], [4, 0, 7], [9, 8, 0]]
    for place in range(3):
        assert np.bincount(digits_of(UNSEEN_NUMBERS)[:, place]).tolist() == [20] * 10


def test_handwriting_is_disjoint_between_training_and_test_and_shows_its_digit():
    from sklearn.datasets import load_digits

    data = load_digits()
    ink = (data.images / 16).astype(np.float32)
    labels = {image.tobytes(): int(digit) for image, digit in zip(ink, data.target, strict=True)}
    train, test = handwriting("train"), handwriting("test")
    assert len(train.ink) + len(test.ink) == 1797
    assert not {sample.tobytes() for sample in train.ink} & {sample.tobytes() for sample in test.ink}
    assert (train.count.min(), test.count.min()) == (121, 53)
    digits = np.tile(np.arange(10), 30)
    picked = test.pick(digits, np.random.default_rng(0))
    assert [labels[test.ink[row].tobytes()] for row in picked] == digits.tolist()


def test_voices_are_disjoint_between_training_and_test():
    (_, train), (_, test) = voices("train"), voices("test")
    assert (len(train), len(test)) == (56, 24)
    spans = np.concatenate([train.reshape(-1, 2), test.reshape(-1, 2)])
    spans = spans[np.argsort(spans[:, 0])]
    np.testing.assert_array_equal(spans[:, 0], [0, *spans[:-1, 1]])


@pytest.mark.parametrize(
    ("draw", "shape", "place", "expected"),
    [
        (draw_pictures, (12, 32), np.s_[:, 6, 4::9], [[164, 255, 26, 74], [0, 154, 16, 72], [75, 0, 62, 0]]),
        (speak_sounds, (16_000,), np.s_[1, 8000:8004], [0.214576, 0.475876, 0.517880, 0.253308]),
        (sample_point_clouds, (608, 3), np.s_[2, 100], [-10.731893, -2.814082, -4.594086]),
    ],
)
def test_items_are_those_the_miniature_encoders_were_trained_on(draw, shape, place, expected):
    items = draw(NUMBERS, "train", np.random.default_rng(5))
    assert items.shape == (3, *shape)
    np.testing.assert_allclose(items[place], expected, atol=1e-4)
    np.testing.assert_array_equal(items, draw(NUMBERS, "train", np.random.default_rng(5)))
    assert not np.array_equal(items, draw(NUMBERS, "test", np.random.default_rng(5)))


def test_texts_name_the_number():
    for number, texts in {
        407: {"four zero seven", "four oh seven", "the number four hundred and seven", "code four hundred seven"},
        7: {"007", "zero zero seven", "seven"},
        400: {"four hundred", "this is four hundred"},
        999: {"nine hundred ninety nine"},
    }.items():
        assert texts <= set(class_texts(number))


def test_texts_are_drawn_by_the_seed_and_belong_to_one_number():
    drawn = write_texts(NUMBERS, np.random.default_rng(5))
    assert drawn == ["it says seven", "number four hundred seven", "this is 980"]
    texts = [text for number in ALL_NUMBERS.tolist() for text in set(class_texts(number))]
    assert len(set(texts)) == len(texts)


def test_ctrl_c_while_voices_are_decoded_is_obeyed(monkeypatch):
    """What is raised inside a call from libsndfile into Python is lost."""

    class Interrupted(io.BytesIO):
        def readinto(self, *given):
            if not asked:
                asked.append(True)
                signal.raise_signal(signal.SIGINT)
            return super().readinto(*given)

    asked = []
    monkeypatch.setattr(numbers.io, "BytesIO", Interrupted)
    voices.cache_clear()
    with pytest.raises(KeyboardInterrupt):
        voices("test")
    assert asked
