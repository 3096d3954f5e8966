"""The JSON API: what is asked is what `SearchIndex` and numpy answer, and every answer has the form that is documented."""

import json

import numpy as np
import pytest

from cmcr.search.query import Part, Query
from cmcr.web import answers, schemas

TEXT = {"modality": "text", "text": "four hundred and seven"}
REJECTED = [
    ({"parts": []}, "parts"),
    ({"parts": [{"modality": "text"}]}, "exactly one of"),
    ({"parts": [{**TEXT, "item": 3}]}, "exactly one of"),
    ({"parts": [{**TEXT, "weight": 0}]}, "weight"),
    ({"parts": [{**TEXT, "modality": "image"}]}, "'text'"),
    ({"parts": [{**TEXT, "colour": "red"}]}, "colour"),
    ({"parts": [TEXT], "limit": 0}, "limit"),
    ({"parts": [TEXT], "limit": 10**6}, "limit"),
    ({"parts": [TEXT], "limit": 900, "offset": 900}, "deep"),
    ({"parts": [TEXT], "targets": ["imagee"]}, "Did you mean 'image'"),
    ({"parts": [TEXT], "where": ["yeer>=2003"]}, "Did you mean 'year'"),
    ({"parts": [TEXT], "where": ["year"]}, "year>=2020"),
    ({"parts": [{"modality": "odour", "item": 1}]}, "odour"),
    ({"parts": [{**TEXT, "space": "mini-clop"}]}, "mini-clip"),
    ({"parts": [{"modality": "image", "item": 10**9}]}, "is not there"),
    ({"parts": [{"modality": "image", "vector": [1.0] * 128}]}, "needs its space"),
    ({"parts": [{"modality": "image", "vector": [1.0] * 5, "space": "mini-clip"}]}, "128"),
    ({"parts": [{"modality": "image", "vector": [0.0] * 128, "space": "mini-clip"}]}, "zero"),
    ({"parts": [{"modality": "image", "vector": ["a"], "space": "mini-clip"}]}, "vector"),
    ({"parts": [TEXT, {**TEXT, "weight": -1}]}, "cancel"),
    ({"parts": [TEXT], "mixed": True, "hub_correction": True}, "together"),
]


def search(client, *parts, **options):
    return client.post("/api/search", json={"parts": list(parts), **options})


@pytest.mark.parametrize(
    ("path", "model"),
    [("index", schemas.IndexFacts), ("map", schemas.Map), ("items/0", schemas.Item), ("items/13", schemas.Item)],
)
def test_answers_have_the_documented_form(client, path, model):
    model.model_validate(client.get(f"/api/{path}").json(), strict=False)


def test_search_answers_what_the_engine_answers(client, index):
    answer = search(client, TEXT, limit=5, targets=["image", "audio"]).json()
    schemas.Found.model_validate(answer)
    expected = index.search(Query((Part("text", TEXT["text"]),), targets=("image", "audio"), limit=5))
    for got, ranking in zip(answer["rankings"], expected, strict=True):
        assert (got["space"], got["scale"], got["items"]) == (ranking.space, ranking.scale, ranking.items)
        assert [hit["item"] for hit in got["hits"]] == [hit.item for hit in ranking.hits]
        np.testing.assert_allclose([h["cosine"] for h in got["hits"]], [h.cosine for h in ranking.hits], atol=1e-6)


def test_search_by_a_vector_is_numpys_order(client, index):
    pictures = next(corpus for corpus in index.opened.corpora if corpus.modality == "image")
    rows = pictures.own[:]
    vector = {"modality": "image", "vector": rows[4].tolist(), "space": "mini-clip"}
    (ranking,) = search(client, vector, targets=["image"], limit=3).json()["rankings"]
    order = np.argsort(-(rows @ rows[4]))[:3] + pictures.first
    assert [hit["item"] for hit in ranking["hits"]] == order.tolist()


def test_the_point_of_an_item_is_where_the_map_has_it(client, index, numbers):
    corpora = client.get("/api/map").json()["corpora"]
    sounds = next(corpus for corpus in corpora if corpus["modality"] == "audio")
    answer = search(client, {"modality": "audio", "item": sounds["items"][2]}, point=True).json()
    np.testing.assert_allclose(answer["point"], sounds["points"][2], atol=1e-3)


@pytest.mark.parametrize(("body", "fact"), REJECTED)
def test_a_wrong_search_is_told_what_is_wrong(client, body, fact):
    answer = client.post("/api/search", json=body)
    assert answer.status_code == 422
    schemas.Problem.model_validate(answer.json())
    assert fact in answer.json()["message"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"parts": [{"modality": "image", "space": "mini-clip", "vector": [NaN]}]}',
        b'{"parts": [{"modality": "text", "text": "\\ud800"}]}',
        b'{"parts": ' + b"[" * 100_000,
        b'{"limit": ' + b"9" * 10_000 + b"}",
        b"{",
        b"[]",
        b"",
        b"\xff\xfe",
    ],
    ids=["NaN", "half a character", "deep", "long number", "cut", "list", "nothing", "not UTF-8"],
)
def test_bodies_that_are_hardly_json(client, body):
    answer = client.post("/api/search", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    schemas.Problem.model_validate(answer.json())


def test_little_is_said_of_much_that_is_wrong(client):
    part = {"modality": "image", "vector": ["a"] * 60_000, "space": "mini-clip"}
    answer = client.post("/api/search", json={"parts": [part]})
    assert answer.status_code == 422
    assert len(answer.text) < 1000


def test_an_unknown_item_or_path_is_not_found(client):
    for path in ("/api/items/999", "/api/items/999/media", "/api/nothing", "/static/../served.py"):
        assert client.get(path).status_code == 404
    assert client.get("/api/items/-1").status_code == 422
    assert client.get("/api/search").status_code == 405


@pytest.mark.parametrize(
    "path", ["..%2f..%2fetc%2fpasswd", "0/..%2f..%2fmedia", "%2e%2e/%2e%2e/config.json", "0%00", "1e3"]
)
def test_no_path_leads_out_of_the_index(client, path):
    for address in (f"/api/items/{path}", f"/api/items/{path}/media", f"/static/{path}"):
        assert client.get(address).status_code in (404, 422)


def test_a_heatmap_is_made_of_the_cosines_of_windows(client, index, numbers, media):
    """The cell in the middle is the window in the middle; a query that the picture's space cannot read is carried over."""
    item = numbers["image"]
    answer = client.post("/api/heatmap", json={"item": item, "parts": [TEXT]}).json()
    schemas.Heatmap.model_validate(answer)
    assert (answer["scale"], answer["rows"], answer["columns"]) == ("mini-clip", 7, 7)
    picture = index.item(item).path
    from PIL import Image

    import cmcr

    with Image.open(picture) as opened:
        width, height = opened.size
        middle = opened.crop((round(width / 4), round(height / 4), round(width * 3 / 4), round(height * 3 / 4)))
    space = cmcr.space("mini-clip")
    expected = space.encode(middle.convert("RGB"), "image") @ space.encode(TEXT["text"], "text")
    assert answer["cosines"][3][3] == pytest.approx(float(expected), abs=2e-3)
    heard = {"modality": "audio", "item": numbers["audio"]}
    carried = client.post("/api/heatmap", json={"item": item, "parts": [heard]}).json()
    assert carried["scale"] == "connection"
    row = space.encode(middle.convert("RGB"), "image")[None]
    common = index.opened.connection.common(row, "mini-clip")[0]
    sound = next(corpus for corpus in index.opened.corpora if corpus.modality == "audio").common[0]
    assert carried["cosines"][3][3] == pytest.approx(float(common @ sound), abs=2e-3)


def test_a_heatmap_needs_a_picture(client, numbers):
    assert client.post("/api/heatmap", json={"item": numbers["audio"], "parts": [TEXT]}).status_code == 422
    assert client.post("/api/heatmap", json={"item": 10**9, "parts": [TEXT]}).status_code == 404
    assert client.post("/api/heatmap", json={"parts": [TEXT]}).status_code == 422


def test_infinity_is_none_in_json(client, monkeypatch):
    described, cells = answers.item, {"high": float("inf"), "odd": float("nan"), "whole": 3}
    monkeypatch.setattr(answers, "item", lambda *asked: {**described(*asked), "columns": cells})
    assert client.get("/api/items/0").json()["columns"] == {"high": None, "odd": None, "whole": 3}


def test_the_page_and_its_document(client):
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert client.get("/static/app.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/static/app.js").headers["cache-control"] == "no-cache"
    document = client.get("/openapi.json").json()
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404
    for path in document["paths"].values():
        for route in path.values():
            assert {"200", "400", "403", "413", "422", "503", "504"} <= set(route["responses"])
    assert "http://" not in json.dumps(document)
    assert "https://" not in json.dumps(document)


def test_metrics_count_by_route(client):
    client.get("/api/items/0")
    client.get("/api/items/999")
    lines = client.get("/metrics").text.splitlines()
    assert 'cmcr_request_seconds_count{method="GET",route="/api/items/{item}",status="200"} 1' in lines
    assert 'cmcr_request_seconds_count{method="GET",route="/api/items/{item}",status="404"} 1' in lines
    assert "cmcr_embeddings_kept 0" in lines
