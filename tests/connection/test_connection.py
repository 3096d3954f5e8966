import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import reference.connection as twin
import reference.projectors as projector_twin
from cmcr.connection import connection as connection_module
from cmcr.connection.connection import ConnectedSpace, Connection
from cmcr.connection.projectors import Projector
from cmcr.connection.settings import Settings
from cmcr.errors import (
    ConfigError,
    DeviceError,
    DimensionError,
    DtypeError,
    NonFiniteError,
    TooFewRowsError,
    ZeroRowError,
)

WIDTHS = {"clip": 4, "clap": 5}


class Encoder:
    """A space whose embedding of the number n is n times ones, plus its position on the axis of n."""

    def __init__(self, width):
        self.width = width
        self.calls = []

    def encode(self, inputs, modality, *, batch_size, show_progress_bar):
        self.calls.append((list(inputs), modality, batch_size, show_progress_bar))
        return np.float32([[1.0 + (column == item) for column in range(self.width)] for item in inputs])


def trained_projector(width, seed):
    """A projector in evaluation mode none of whose numbers is at its usual start."""
    generator = torch.Generator().manual_seed(seed)
    projector = Projector(width, Settings(width=3, hidden=(6,)).projector_shape(4, 5))
    for name, value in projector.state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=generator)
            value.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else drawn)
    return projector.eval()


def made(encoders=None):
    return Connection(
        spaces=(ConnectedSpace("clip", ("text", "image"), 4), ConnectedSpace("clap", ("text", "audio"), 5)),
        projectors={"clip": trained_projector(4, 0), "clap": trained_projector(5, 1)},
        overlap="text",
        method="c-mcr",
        settings=Settings(width=3, hidden=(6,)),
        seed=0,
        overlap_rows=10,
        encoders=encoders or {},
    )


def layers_of(connection, space):
    state = connection.projectors[space].state_dict()
    return projector_twin.layers_from({name: v.double().numpy() for name, v in state.items()}, final_relu=False)


# ------------------------------------------------------------------------------------------------------------- project


@pytest.mark.parametrize("space", WIDTHS)
@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_project_equals_its_twin(rng, space, rows, dtype):
    connection = made()
    x = (5 * rng.normal(size=(rows, WIDTHS[space]))).astype(dtype)  # not unit rows: they are scaled first
    expected = projector_twin.project(x, layers_of(connection, space))
    double = dtype is np.float64
    for embeddings in (x, torch.from_numpy(x)):
        result = connection.project(embeddings, space)
        assert type(result) is type(embeddings)
        assert np.asarray(result).dtype == (np.float64 if double else np.float32)
        np.testing.assert_allclose(np.asarray(result), expected, atol=1e-12 if double else 1e-5)


def test_bfloat16_is_projected_in_single(rng):
    connection = made()
    x = torch.from_numpy(rng.normal(size=(3, 4))).bfloat16()
    result = connection.project(x, "clip")
    assert result.dtype == torch.float32
    expected = projector_twin.project(x.double().numpy(), layers_of(connection, "clip"))
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)


def test_one_row_is_projected_as_in_a_batch(rng):
    connection = made()
    x = rng.normal(size=(6, 4)).astype(np.float32)
    whole = connection.project(x, "clip")
    single = np.concatenate([connection.project(row[None], "clip") for row in x])
    np.testing.assert_allclose(single, whole, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_many_blocks_equal_one(monkeypatch, rng, rows):
    connection = made()
    x = rng.normal(size=(rows, 5))
    whole = connection.project(x, "clap")
    monkeypatch.setattr(connection_module, "_ROWS_AT_ONCE", 3)
    np.testing.assert_allclose(connection.project(x, "clap"), whole, atol=1e-14)


def test_projecting_leaves_the_stored_projectors_alone(rng):
    connection = made()
    before = {name: value.clone() for name, value in connection.projectors["clip"].state_dict().items()}
    x = torch.from_numpy(rng.normal(size=(6, 4))).requires_grad_()
    result = connection.project(x, "clip")
    assert result.dtype == torch.float64
    assert not result.requires_grad
    projector = connection.projectors["clip"]
    assert not projector.training
    assert all(parameter.grad is None for parameter in projector.parameters())
    for name, value in projector.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    "layout", [lambda a: a[::-1].copy()[::-1], lambda a: a.astype(a.dtype.newbyteorder()), np.asfortranarray]
)
def test_layouts_of_numpy(rng, layout):
    connection, x = made(), rng.normal(size=(4, 4))
    x.flags.writeable = False
    expected = projector_twin.project(x, layers_of(connection, "clip"))
    np.testing.assert_allclose(connection.project(layout(x), "clip"), expected, atol=1e-12)
    np.testing.assert_allclose(connection.project(x, "clip"), expected, atol=1e-12)


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 5), scale=st.floats(1e-3, 1e3))
def test_projection_is_blind_to_scale_and_order(seed, rows, scale):
    rng, connection = np.random.default_rng(seed), made()
    x = rng.normal(size=(rows, 4))
    order = rng.permutation(rows)
    result = connection.project(x, "clip")
    np.testing.assert_allclose(connection.project(scale * x[order], "clip"), result[order], atol=1e-10)


@pytest.mark.parametrize(
    ("space", "nearest"), [("clipp", " Did you mean 'clip'?"), ("CLAP", ""), ("ulip", " Did you mean 'clip'?")]
)
def test_an_unknown_space_is_refused(space, nearest):
    with pytest.raises(ConfigError) as caught:
        made().project(np.ones((1, 4)), space)
    assert str(caught.value) == f"unknown space {space!r}.{nearest} Known: clap, clip."


def test_embeddings_of_the_other_space_are_refused():
    with pytest.raises(DimensionError) as caught:
        made().project(np.ones((1, 5)), "clip")
    assert str(caught.value) == (
        "embeddings of space 'clip' must be 4 wide, got 5: were they made by another encoder, or do they belong to 'clap'?"
    )


@pytest.mark.parametrize(
    ("embeddings", "error", "message"),
    [
        (
            np.ones(4),
            DimensionError,
            r"expected shape \(n, D\), got \(4,\). For a single embedding pass embedding\[None\]",
        ),
        (np.ones((0, 4)), TooFewRowsError, r"expected at least 1 row\(s\), got 0"),
        (np.ones((1, 4), dtype=int), DtypeError, "expected float16, float32 or float64, got int64"),
        ([[1.0] * 4], DtypeError, "expected a numpy array or a torch tensor .* got list"),
        (np.array([[1.0, 1.0, np.nan, 1.0]]), NonFiniteError, "the first is row 0"),
        (np.array([[1.0] * 4, [0.0] * 4]), ZeroRowError, "the first is row 1"),
    ],
)
def test_unusable_embeddings_are_refused(embeddings, error, message):
    with pytest.raises(error, match=f"^embeddings of space 'clip': .*{message}"):
        made().project(embeddings, "clip")


def test_an_unknown_device_is_refused():
    with pytest.raises(DeviceError, match=r"^unknown device 'gpu': expected 'auto'"):
        made().project(np.ones((1, 4)), "clip", device="gpu")


# ---------------------------------------------------------------------------------------------------------- similarity


@pytest.mark.parametrize(("queries", "corpus", "width"), [(1, 1, 1), (1, 5, 3), (4, 3, 8)])
def test_similarity_equals_numpy(rng, queries, corpus, width):
    q, c = 3 * rng.normal(size=(queries, width)), rng.normal(size=(corpus, width))
    expected = twin.similarity(q, c)
    for left in (q, torch.from_numpy(q)):
        for right in (c, torch.from_numpy(c)):
            result = made().similarity(left, right)
            assert type(result) is type(left)
            np.testing.assert_allclose(np.asarray(result), expected, atol=1e-14)


@pytest.mark.parametrize(
    ("left", "right", "dtype"),
    [(np.float16, np.float32, np.float32), (np.float32, np.float32, np.float32), (np.float32, np.float64, np.float64)],
)
def test_precision_of_the_similarity(rng, left, right, dtype):
    q, c = rng.normal(size=(3, 4)).astype(left), rng.normal(size=(5, 4)).astype(right)
    result = made().similarity(q, c)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, twin.similarity(q, c), atol=1e-6)


def test_cosines_stay_between_minus_one_and_one(rng):
    rows = rng.normal(size=(500, 3)).astype(np.float32)
    result = made().similarity(rows, np.concatenate([rows, -rows]))
    assert result.max() == 1.0
    assert result.min() == -1.0


def test_similarity_refuses_other_widths():
    with pytest.raises(DimensionError, match=r"^queries are 3 wide and the corpus 4: project both first\.$"):
        made().similarity(np.ones((1, 3)), np.ones((1, 4)))


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_cosine_with_a_row_of_zeros_is_zero(rng, kind, dtype):
    # A final ReLU can leave such rows.
    q, c = rng.normal(size=(4, 3)).astype(dtype), rng.normal(size=(5, 3)).astype(dtype)
    q[1], c[[0, 3]] = 0.0, 0.0
    expected = np.zeros((4, 5))
    expected[np.ix_([0, 2, 3], [1, 2, 4])] = twin.similarity(q[[0, 2, 3]], c[[1, 2, 4]])
    result = np.asarray(made().similarity(kind(q), kind(c)))
    np.testing.assert_allclose(result, expected, atol=1e-6)
    assert (result[1] == 0).all()
    assert (result[:, [0, 3]] == 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-30, 1e-13, 1e30])
def test_cosines_do_not_depend_on_the_scale(rng, scale, dtype):
    q, c = rng.normal(size=(3, 4)), rng.normal(size=(5, 4))
    result = made().similarity((scale * q).astype(dtype), (scale * c).astype(dtype))
    np.testing.assert_allclose(result, twin.similarity(q, c), atol=1e-6)


@pytest.mark.parametrize(("name", "place"), [("queries", 0), ("corpus", 1)])
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (np.full((1, 3), np.nan), NonFiniteError, r"NaN or infinity in 1 of the rows 0\.\.0, the first is row 0\."),
        (np.full((1, 3), -np.inf), NonFiniteError, r"NaN or infinity in 1 of the rows 0\.\.0, the first is row 0\."),
        (np.ones(3), DimensionError, r"expected shape \(n, D\), got \(3,\)\."),
        (np.ones((0, 3)), TooFewRowsError, r"expected at least 1 row\(s\), got 0\."),
        (np.ones((1, 3), dtype=int), DtypeError, "expected float16, float32 or float64, got int64"),
    ],
)
def test_similarity_names_what_is_unusable(name, place, bad, error, message):
    arrays = [np.ones((1, 3)), np.ones((1, 3))]
    arrays[place] = bad
    with pytest.raises(error, match=f"^{name}: {message}"):
        made().similarity(*arrays)


# -------------------------------------------------------------------------------------------------------------- encode


def test_encode_is_the_encoder_and_then_the_projector():
    encoder = Encoder(4)
    connection = made({"clip": encoder})
    result = connection.encode([2, 0], "image", batch_size=7, show_progress_bar=False)
    assert encoder.calls == [([2, 0], "image", 7, False)]
    embedded = np.float32([[1, 1, 2, 1], [2, 1, 1, 1]])
    assert isinstance(result, np.ndarray)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, projector_twin.project(embedded, layers_of(connection, "clip")), atol=1e-5)


def test_encode_hands_the_defaults_on():
    encoder = Encoder(5)
    made({"clap": encoder}).encode([1], "audio")
    assert encoder.calls == [([1], "audio", 32, None)]


@pytest.mark.parametrize("space", WIDTHS)
def test_the_overlap_is_encoded_by_the_space_that_is_named(space):
    encoders = {name: Encoder(width) for name, width in WIDTHS.items()}
    connection = made(encoders)
    result = connection.encode([3], "text", space=space)
    assert {name: len(encoder.calls) for name, encoder in encoders.items()} == {
        name: int(name == space) for name in WIDTHS
    }
    embedded = np.float32([[1.0 + (column == 3) for column in range(WIDTHS[space])]])
    np.testing.assert_allclose(result, projector_twin.project(embedded, layers_of(connection, space)), atol=1e-5)


def test_the_overlap_without_a_space_is_ambiguous():
    with pytest.raises(ConfigError) as caught:
        made({name: Encoder(width) for name, width in WIDTHS.items()}).encode([1], "text")
    assert str(caught.value) == "both spaces embed text: say which encoder to use, space='clip' or space='clap'."


@pytest.mark.parametrize(
    ("modality", "space", "message"),
    [
        ("imagee", None, "unknown modality 'imagee'. Did you mean 'image'? Known: audio, image, text."),
        ("point_cloud", None, "unknown modality 'point_cloud'. Known: audio, image, text."),
        ("text", "clop", "unknown space 'clop'. Did you mean 'clip'? Known: clap, clip."),
        ("audio", "clip", "space 'clip' does not embed audio; 'clap' does."),
        (
            "audio",
            None,
            "no encoder of space 'clap' is attached: this connection was made from arrays. Embed the items yourself and "
            "call project(embeddings, space='clap').",
        ),
    ],
)
def test_what_cannot_be_encoded_is_refused(modality, space, message):
    encoder = Encoder(4)
    with pytest.raises(ConfigError) as caught:
        made({"clip": encoder}).encode([1], modality, space=space)
    assert str(caught.value) == message
    assert encoder.calls == []


# ---------------------------------------------------------------------------------------------------------- properties


def test_width_and_modalities():
    connection = made()
    assert connection.width == 3
    assert connection.modalities == ("text", "image", "audio")


def test_an_outer_modality_of_both_spaces_is_named_once_and_ambiguous():
    both = ("text", "image")
    plain = made()
    connection = Connection(
        spaces=(ConnectedSpace("clip", both, 4), ConnectedSpace("clap", both, 5)),
        projectors=plain.projectors,
        overlap="text",
        method="c-mcr",
        settings=plain.settings,
        seed=0,
        overlap_rows=10,
    )
    assert connection.modalities == both
    with pytest.raises(ConfigError, match=r"^both spaces embed image: say which encoder to use, space='clip' or"):
        connection.encode([1], "image")
