"""Media: the files of the index alone, whole or in ranges, and what is made of them."""

import io

import numpy as np
import pytest
from PIL import Image

from cmcr.data.point_clouds import read_point_cloud
from cmcr.errors import SampleError
from cmcr.search.items import Item
from cmcr.web import media as shown


def item_at(path, modality="image"):
    return Item(3, path.name, modality, "s", path.name, path, "", None, True, {})


def test_a_file_is_served_whole_and_in_ranges(client, index, numbers):
    path = index.item(numbers["audio"]).path
    address = f"/api/items/{numbers['audio']}/media"
    whole = client.get(address)
    assert whole.content == path.read_bytes()
    assert whole.headers["content-type"] == "audio/wav"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert whole.headers["content-disposition"] == f'inline; filename="{path.name}"'
    part = client.get(address, headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, path.read_bytes()[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{path.stat().st_size}"
    assert client.get(address, headers={"range": "bytes=99999999-"}).status_code == 416


def test_a_thumbnail_is_a_small_jpeg(tmp_path):
    Image.new("RGBA", (900, 300), (255, 0, 0, 255)).save(tmp_path / "a.png")
    content = shown.thumbnail(item_at(tmp_path / "a.png"))
    with Image.open(io.BytesIO(content)) as opened:
        assert (opened.format, opened.size) == ("JPEG", (320, 107))
        assert np.abs(np.asarray(opened)[50, 50].astype(int) - (255, 0, 0)).max() < 5


def test_points_are_those_of_the_file(client, index, numbers, tmp_path):
    answer = client.get(f"/api/items/{numbers['point_cloud']}/points")
    points = np.frombuffer(answer.content, "<f4").reshape(-1, 3)
    np.testing.assert_array_equal(points, read_point_cloud(index.item(numbers["point_cloud"]).path))
    cloud = np.random.default_rng(0).random((10_000, 3), dtype=np.float32)
    np.save(tmp_path / "a.npy", cloud)
    many = np.frombuffer(shown.points(item_at(tmp_path / "a.npy", "point_cloud")), "<f4").reshape(-1, 3)
    assert many.shape == (4096, 3)
    np.testing.assert_array_equal(many[[0, -1]], cloud[[0, -1]])


def test_what_has_no_file_of_that_kind_is_not_found(client, numbers):
    assert client.get(f"/api/items/{numbers['text']}/media").status_code == 404
    assert client.get(f"/api/items/{numbers['audio']}/thumbnail").status_code == 404
    assert client.get(f"/api/items/{numbers['image']}/points").status_code == 404


@pytest.mark.parametrize("name", ["a.svg", "a.html", "a.xhtml", "a.pdf", "a", "a.js"])
def test_nothing_that_can_run_is_shown(tmp_path, name):
    (tmp_path / name).write_text("<script>")
    answer = shown.file_response(item_at(tmp_path / name), {})
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")


def test_odd_names_stay_out_of_headers(tmp_path):
    path = tmp_path / 'né"w; x=1.png'
    path.write_bytes(b"x")
    assert (
        shown.file_response(item_at(path), {}).headers["content-disposition"]
        == "inline; filename*=utf-8''n%C3%A9%22w%3B%20x%3D1.png"
    )


def test_a_file_that_is_gone_or_no_file(tmp_path):
    for path in (tmp_path / "gone.png", tmp_path):
        with pytest.raises(SampleError, match="not there any more"):
            shown.file_response(item_at(path), {})
