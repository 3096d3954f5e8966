"""`cmcr.compare`: what it says of methods is what connecting, evidence and pairs say."""

import numpy as np
import pytest

import cmcr
from cmcr.connection import compare as module
from cmcr.connection.methods import auto
from cmcr.errors import ConfigError, DimensionError, TooFewRowsError
from connection.methods.worlds import on_disk, world


@pytest.fixture
def cheap(monkeypatch):
    """Without the training, which tests of `auto` do."""
    quick = [each for each in module.CANDIDATES if not each.slow]
    monkeypatch.setattr(module, "CANDIDATES", quick)
    monkeypatch.setattr(auto, "chosen_of", lambda found: "ridge")


def recall(queries, corpus):
    return 100 * (np.argmax(queries @ corpus.T, axis=1) == np.arange(len(queries))).mean()


def test_every_method_is_measured_and_the_choice_is_marked(cheap):
    clip, clap, pairs = world("continuous")
    reported = []
    found = cmcr.compare(clip, clap, pairs=pairs, device="cpu", progress=lambda *given: reported.append(given))
    by_name = {row["method"]: row for row in found.rows}
    assert set(by_name) == {"cca", "ridge", "procrustes", "posterior", "concepts", "concepts, gap left in"}
    assert [row["worth"] for row in found.rows] == sorted((row["worth"] for row in found.rows), reverse=True)
    assert by_name["cca"]["worth"] == 1.0
    for name in ("cca", "ridge"):
        connection = cmcr.connect(clip, clap, method=name, device="cpu")
        a, b = (connection.common(pairs[space], space) for space in ("clip", "clap"))
        for key, value in (("clip_to_clap/R@1", recall(a, b)), ("clap_to_clip/R@1", recall(b, a))):
            assert by_name[name][key]["value"] == pytest.approx(value)
    lines = str(found).splitlines()
    assert [line[0] for line in lines[1:-1]].count("*") == 1
    assert "* ridge" in str(found)
    assert len({len(line) for line in lines[:-1]}) == 1
    assert (reported[-1], {stage for stage, _ in reported}) == (
        ("measuring by pairs", 1.0),
        {"choosing without pairs", "measuring by pairs"},
    )


def test_wilsons_interval():
    # 8 of 10: Wilson (1927), by the formula as a quadratic (p - q)^2 = z^2 q (1 - q) / n.
    corpus = np.eye(10, dtype=np.float32)
    queries = corpus.copy()
    queries[:2] = corpus[2:4] * 0.9
    found = module._recall(*map(module.torch.from_numpy, (queries, corpus)))
    z2, n, p = 1.959964**2, 10, 0.8
    low, high = np.sort(np.roots([1 + z2 / n, -(2 * p + z2 / n), p * p]))
    assert (found["value"], found["low"], found["high"]) == pytest.approx((80.0, 100 * low, 100 * high))


def test_pairs_change_no_evidence_and_disk_gives_what_ram_gives(cheap, tmp_path):
    clip, clap, pairs = world("continuous")
    plain = cmcr.compare(clip, clap, device="cpu")
    assert all(set(row) == {"method", "worth", "classes", "instances", "seconds"} for row in plain.rows)
    for other in (cmcr.compare(clip, clap, pairs=pairs, device="cpu"), cmcr.compare(*on_disk(tmp_path, clip, clap))):
        for one, two in zip(plain.rows, other.rows, strict=True):
            for key in ("worth", "classes", "instances"):
                assert one[key] == pytest.approx(two[key], rel=1e-3), one["method"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda pairs: {"clip": pairs["clip"]}, ConfigError, "an array of each of clip, clap"),
        (lambda pairs: {**pairs, "clap": pairs["clap"][1:]}, DimensionError, "60 and 59 rows"),
        (lambda pairs: {**pairs, "clap": pairs["clap"][:, 1:]}, DimensionError, "10 wide"),
    ],
)
def test_wrong_pairs_are_refused_before_any_work(change, error, message):
    clip, clap, pairs = world("continuous")
    with pytest.raises(error, match=message):
        cmcr.compare(clip, clap, pairs=change(pairs), progress=lambda *given: pytest.fail("worked"))


def test_what_cannot_be_compared_is_refused(cheap):
    clip, clap, _ = world("continuous")
    other = cmcr.Memories("other", text=clip.rows["text"], point_cloud=clip.rows["image"])
    with pytest.raises(ConfigError, match="two at a time"):
        cmcr.compare(clip, clap, other)
    with pytest.raises(TooFewRowsError, match="at least 100 overlap items"):
        cmcr.compare(clip, clap, rows=99)
