"""The miniature world: what is kept apart, and that a seed fixes every item."""

import numpy as np
import pytest

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


def test_two_hundred_numbers_are_unseen_and_every_digit_is_as_frequent_in_every_place():
    assert len(UNSEEN_NUMBERS) == 200
    assert len(SEEN_NUMBERS) == 800
    assert not set(SEEN_NUMBERS.tolist()) & set(UNSEEN_NUMBERS.tolist())
    for place in range(3):
        assert np.bincount(digits_of(UNSEEN_NUMBERS)[:, place]).tolist() == [20] * 10


def test_digits_of():
    assert digits_of(np.array([7, 407, 980])).tolist() == [[0, 0, 7], [4, 0, 7], [9, 8, 0]]


def test_handwriting_samples_are_disjoint_between_training_and_test():
    train, test = handwriting("train"), handwriting("test")
    assert len(train.ink) + len(test.ink) == 1797
    seen = {sample.tobytes() for sample in train.ink}
    assert sum(sample.tobytes() in seen for sample in test.ink) == 0
    assert (train.count >= 100).all()
    assert (test.count >= 50).all()


def test_handwriting_samples_show_the_digit_they_are_picked_for():
    from sklearn.datasets import load_digits

    data = load_digits()
    label_of = {
        (image / 16).astype(np.float32).tobytes(): int(t) for image, t in zip(data.images, data.target, strict=True)
    }
    hand = handwriting("test")
    digits = np.tile(np.arange(10), 30)
    picked = hand.pick(digits, np.random.default_rng(0))
    assert [label_of[hand.ink[row].tobytes()] for row in picked] == digits.tolist()


def test_voices_are_disjoint_between_training_and_test():
    train, test = voices("train"), voices("test")
    assert (len(train.bounds), len(test.bounds)) == (56, 24)
    spans = np.concatenate([train.bounds.reshape(-1, 2), test.bounds.reshape(-1, 2)])
    spans = spans[np.argsort(spans[:, 0])]
    assert spans[0, 0] == 0
    assert (spans[1:, 0] == spans[:-1, 1]).all()
    assert spans[-1, 1] == len(train.words)


@pytest.mark.parametrize(
    ("draw", "shape", "dtype"),
    [
        (draw_pictures, (12, 32), np.uint8),
        (speak_sounds, (16_000,), np.float32),
        (sample_point_clouds, (608, 3), np.float32),
    ],
)
def test_items_follow_the_seed_and_the_split(draw, shape, dtype):
    numbers = np.array([0, 407, 999])
    first = draw(numbers, "train", np.random.default_rng(5))
    again = draw(numbers, "train", np.random.default_rng(5))
    other = draw(numbers, "test", np.random.default_rng(5))
    assert first.shape == (3, *shape)
    assert first.dtype == dtype
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.isfinite(first).all()


def test_sounds_are_loud_and_within_range():
    sounds = speak_sounds(np.arange(50), "train", np.random.default_rng(0))
    np.testing.assert_allclose(np.abs(sounds).max(axis=1), 0.9, atol=1e-5)


def test_point_clouds_stand_upright_and_read_from_left_to_right():
    # 1 has far less ink in its lower left than 0, so the thirds of "100" differ as their digits do.
    clouds = sample_point_clouds(np.full(200, 100), "train", np.random.default_rng(0))
    assert np.ptp(clouds[..., 0]) > 2 * np.ptp(clouds[..., 1]) > 2 * np.ptp(clouds[..., 2]) * 0.5
    spread = [
        np.std(clouds[:, start : start + 192, 0] - clouds[:, start : start + 192, 0].mean(axis=1, keepdims=True))
        for start in (0, 192, 384)
    ]
    assert spread[0] < spread[1]
    assert spread[0] < spread[2]


def test_texts_name_the_number():
    assert class_texts(407)[0] == "407"
    assert {"four zero seven", "four oh seven", "the number four hundred and seven", "code four hundred seven"} <= set(
        class_texts(407)
    )
    assert {"007", "zero zero seven", "seven"} <= set(class_texts(7))
    assert {"four hundred", "this is four hundred"} <= set(class_texts(400))
    assert "three hundred and fifteen" in class_texts(315)
    assert "nine hundred ninety nine" in class_texts(999)
    written = write_texts(np.repeat(ALL_NUMBERS, 3), np.random.default_rng(0))
    assert all(
        text in class_texts(number) for text, number in zip(written, np.repeat(ALL_NUMBERS, 3).tolist(), strict=True)
    )
    assert len(set(written)) > 2500


def test_no_text_names_two_numbers():
    owners: dict[str, set[int]] = {}
    for number in ALL_NUMBERS.tolist():
        for text in class_texts(number):
            owners.setdefault(text, set()).add(number)
    assert [text for text, numbers in owners.items() if len(numbers) > 1] == []
