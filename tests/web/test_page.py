"""The page in a real browser, in front of the real server, on the miniature index."""

import io
import json
import re
import shutil
import socket
import threading
import time
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
import soundfile

from cmcr.cli import main
from cmcr.demo.serving import build_search
from cmcr.files import MANIFEST
from cmcr.search.engine import SearchIndex
from cmcr.search.query import Part, Query

playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser of these tests")
uvicorn = pytest.importorskip("uvicorn")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
).split()
NUMBERS, SHOWN = 60, 8


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    build_search(out / "search", lambda stage, share: None, numbers=NUMBERS)
    return out


@pytest.fixture(scope="module")
def index(out):
    return SearchIndex(out / "search" / "index")


@pytest.fixture(scope="module")
def site(index):
    from cmcr.web.app import create_app
    from cmcr.web.served import Served

    with socket.create_server(("127.0.0.1", 0)) as listening:
        app = create_app(Served(lambda earlier: index))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Visit:
    """A page that was opened, and all that it asked for and said."""

    def __init__(self, browser, site, link="", **context):
        self.asked, self.said = [], []
        still = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"}
        self.context = browser.new_context(**{**still, **context})
        self.page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.goto(f"{site}/{link}")

    def ready(self):
        self.page.wait_for_selector(".hit")
        self.page.wait_for_selector("#results[aria-busy=false]")
        return self

    def search(self, act):
        """Do what makes the page search, and wait until its answer is shown."""
        with self.page.expect_response("**/api/search"):
            act()
        self.page.wait_for_selector("#results[aria-busy=false]")

    def search_words(self, words):
        self.page.fill("#text", words)
        self.search(lambda: self.page.keyboard.press("Enter"))

    def search_file(self, path):
        self.search(lambda: self.page.set_input_files("#file", path))

    def shown(self):
        """Items of each ranking on the page."""
        return {
            (each.get_attribute("data-modality"), each.get_attribute("data-scale")): [
                int(hit.get_attribute("data-item")) for hit in each.query_selector_all(".hit")
            ]
            for each in self.page.query_selector_all(".ranking")
        }

    def text(self, selector):
        return self.page.inner_text(selector)


@pytest.fixture
def visit(browser, site):
    visits = []

    def open_page(link="", **context):
        visits.append(Visit(browser, site, link, **context))
        return visits[-1]

    yield open_page
    for each in visits:
        each.context.close()
        assert {"{0.scheme}://{0.netloc}".format(urlsplit(url)) for url in each.asked} == {site}
        assert each.said == []


def found(index, *query, **options):
    """What the engine itself finds, as `Visit.shown`."""
    rankings = index.search(*query, **(options if query else {"limit": SHOWN, **options}))
    return {(each.modality, each.scale): [hit.item for hit in each.hits] for each in rankings}


@pytest.fixture(scope="module")
def sound(out, index):
    """A spoken number that was not indexed by its file alone: one whose picture the engine puts first."""
    for path in sorted((out / "search" / "items" / "sounds").iterdir()):
        (ranking,) = index.search(audio=path, targets=("image",), limit=1)
        if ranking.hits[0].id == path.stem:
            return path
    raise AssertionError("the engine finds no picture")


def test_an_example_is_there_at_once(visit):
    page = visit().ready()
    assert len(page.shown()) == 4
    page.page.wait_for_selector("#parts :text('sound 000')")
    assert page.text(".ranking h3") == "Pictures, through the connection"
    assert re.match(r"\d+ results in 4 lists", page.text("#status"))


def test_a_spoken_number_finds_its_picture(visit, index, sound):
    page = visit().ready()
    page.search_file(sound)
    assert page.shown() == found(index, audio=sound)
    pictures = page.page.locator(".ranking[data-modality=image]")
    assert pictures.locator("h3").inner_text() == "Pictures, through the connection"
    assert pictures.locator(".id").first.inner_text() == sound.stem
    assert page.text(".ranking[data-modality=audio] h3") == "Sounds, by mini-clap itself"
    assert "cosines of mini-clap" in page.text(".ranking[data-modality=audio]")
    image = pictures.locator("img").first.element_handle()
    page.page.wait_for_function("image => image.complete && image.naturalWidth === 32", arg=image)
    audio = page.page.locator("audio").first.element_handle()
    audio.evaluate("audio => { audio.preload = 'auto'; audio.load(); }")
    page.page.wait_for_function("audio => audio.duration === 2", arg=audio)


def test_words_by_the_space_itself_and_through_the_connection(visit, index):
    page, words = visit().ready(), "four hundred and <b>seven</b>"
    page.search_words(words)
    assert page.shown() == (expected := found(index, text=words))
    assert {("image", "mini-clip"), ("point_cloud", "connection")} < set(expected)
    assert "<b>seven</b>" in page.text("#parts")  # text, not markup


def test_a_cloud_is_dropped_beside_words_with_a_weight(visit, out, index):
    page, path = visit().ready(), out / "search" / "items" / "clouds" / "500.npy"
    page.search_words("nine")
    page.page.check("#combine")
    dropped = page.page.evaluate_handle(
        """([bytes, name]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name));
            return transfer;
        }""",
        [list(path.read_bytes()), path.name],
    )
    page.search(lambda: page.page.dispatch_event("body", "drop", {"dataTransfer": dropped}))
    page.page.fill("#parts li:first-child input", "-0.5")
    page.search(lambda: page.page.keyboard.press("Tab"))
    assert page.page.evaluate("document.activeElement.textContent") == "Remove"  # the search took no focus away
    assert page.shown() == found(index, Query((Part("text", "nine", -0.5), Part("point_cloud", path)), limit=SHOWN))
    page.search(lambda: page.page.click("#parts li:first-child .remove"))
    assert page.shown() == found(index, point_cloud=path)
    page.page.click(".remove")
    assert page.shown() == {}
    assert page.text("#status") == "Nothing is asked."


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_clouds_are_drawn_and_turned(visit, motion):
    page = visit(reduced_motion=motion).ready().page
    canvas = page.locator(".cloud").first
    canvas.scroll_into_view_if_needed()
    page.wait_for_function("canvas => canvas.width !== 300", arg=canvas.element_handle())  # 300 until it is drawn
    looks = [canvas.evaluate("canvas => canvas.toDataURL()")]
    time.sleep(0.2)
    looks.append(canvas.evaluate("canvas => canvas.toDataURL()"))
    assert (looks[0] == looks[1]) == (motion == "reduce")
    canvas.focus()
    looks[1] = canvas.evaluate("canvas => canvas.toDataURL()")  # in focus it stands still
    page.keyboard.press("ArrowRight")
    assert canvas.evaluate("canvas => canvas.toDataURL()") != looks[1]


def test_a_recording_is_asked_with(visit):
    page = visit(permissions=["microphone"]).ready()
    page.page.click("#record")
    page.page.wait_for_selector("#record[aria-pressed=true]")
    time.sleep(0.4)
    page.search(lambda: page.page.click("#record"))
    assert "recording.wav" in page.text("#parts")
    assert ("audio", "mini-clap") in page.shown()


def test_filters_targets_pages_and_switches(visit, index):
    page = visit().ready()
    page.search_words("two hundred")
    page.page.click("summary")
    page.page.click("#add-filter")
    page.page.select_option("#filters select >> nth=0", "value")
    page.page.select_option("#filters select >> nth=1", ">=")
    page.page.fill("#filters input", "500")
    page.search(lambda: page.page.keyboard.press("Enter"))
    page.search(lambda: page.page.uncheck("#targets input[value=text]"))
    query = {"text": "two hundred", "where": ("value>=500",), "targets": ("image", "audio", "point_cloud")}
    assert page.shown() == found(index, **query)
    assert list(map(len, page.shown().values())) == [SHOWN] * 3
    page.search(lambda: page.page.click("#next"))
    assert page.shown() == found(index, **query, offset=SHOWN)
    assert page.page.locator(".hits").first.get_attribute("start") == str(SHOWN + 1)
    for switch, option in (("#duplicates", "group_duplicates"), ("#hubs", "hub_correction"), ("#mixed", "mixed")):
        page.search(lambda switch=switch: page.page.check(switch))
        assert page.shown() == found(index, **query, **{option: True}), option
        page.search(lambda switch=switch: page.page.uncheck(switch))


def test_a_link_restores_the_query(visit, index, sound):
    page = visit().ready()
    page.search_file(sound)
    page.page.click("summary")
    page.search(lambda: page.page.check("#duplicates"))
    other = visit(f"#{urlsplit(page.page.url).fragment}").ready()
    assert other.shown() == page.shown() == found(index, audio=sound, group_duplicates=True)
    assert sound.name in other.text("#parts")
    assert other.page.is_checked("#duplicates")
    page.page.go_back()
    page.page.wait_for_function("() => !document.getElementById('duplicates').checked")


def test_a_lost_upload_and_a_broken_link_say_so(visit):
    lost = visit("#parts=" + quote(json.dumps([{"modality": "audio", "upload": "0" * 64}])))
    lost.page.wait_for_selector("#problem:not([hidden])")
    assert "give the file again" in lost.page.get_by_role("alert").inner_text()
    assert all("404" in said for said in lost.said)
    lost.said.clear()
    broken = visit("#parts=nonsense").ready()
    assert "not whole" in broken.page.get_by_role("alert").inner_text()


def test_a_bad_file_gives_a_message_in_place(visit):
    page = visit().ready()
    before, bad = page.shown(), {"name": "broken.png", "mimeType": "image/png", "buffer": b"not a picture"}
    page.page.set_input_files("#file", files=[bad])
    page.page.wait_for_selector("#problem:not([hidden])")
    assert "not a picture" in page.page.get_by_role("alert").inner_text()
    assert page.shown() == before
    assert all("422" in said for said in page.said)
    page.said.clear()
    page.page.set_input_files("#file", files=[{**bad, "name": "letter.doc"}])
    page.page.wait_for_function("() => document.getElementById('problem').textContent.startsWith('letter.doc')")
    page.search_words("one")
    assert page.page.locator("#problem").is_hidden()


def test_the_newest_question_is_answered(visit, index):
    page, held = visit().ready(), []
    page.page.route("**/api/search", lambda route: held.append(route) if not held else route.continue_())
    page.page.fill("#text", "one")
    page.page.keyboard.press("Enter")
    page.search_words("two")
    assert page.shown() == found(index, text="two")
    assert len(held) == 1


def test_where_a_sound_is_in_a_picture(visit, sound):
    page = visit().ready()
    page.search_file(sound)
    with page.page.expect_response("**/api/heatmap") as answered:
        page.page.click("text=Where is it? >> nth=0")
    cosines = np.array(answered.value.json()["cosines"])
    page.page.wait_for_selector("canvas.heat")
    row, column = np.argwhere(cosines == cosines.max())[0] + 1
    told = page.text(".told")
    assert f"{cosines.min():.3f}" in told
    assert f"{cosines.max():.3f}" in told
    assert f"row {row} of {len(cosines)}, column {column} of {cosines.shape[1]}" in told
    over, under = page.page.locator("canvas.heat").bounding_box(), page.page.locator(".stage.large img").bounding_box()
    assert over == pytest.approx(under, abs=1)
    page.page.keyboard.press("Escape")
    assert page.page.locator("#item").is_hidden()


def test_the_map_names_and_opens_items(visit):
    page = visit().ready()
    page.page.wait_for_selector("#legend li")
    assert set(page.page.locator("#legend li").all_inner_texts()) == {
        "Pictures", "Texts", "Sounds", "Point clouds", "The query",
    }  # fmt: skip
    page.page.focus("#map")
    page.page.keyboard.press("ArrowRight")
    page.page.wait_for_function("() => document.getElementById('map-text').textContent !== ''")
    page.page.keyboard.press("Enter")
    page.page.wait_for_selector("dialog[open]")
    assert page.text("#map-text").startswith(page.text("#item-title"))


def tab_to(page, wanted, most=200):
    """Press Tab until the element in focus matches; all on the way must show that they have the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        visible, there, name = page.evaluate(
            """wanted => {
                const here = document.activeElement;
                const outlined = (each) => each && getComputedStyle(each).outlineStyle !== 'none';
                return [here === document.body || outlined(here) || outlined(here.parentElement) || here.tagName === 'AUDIO',
                     here.matches(wanted), here.outerHTML];
            }""",
            wanted,
        )
        assert visible, name
        if there:
            return
    raise AssertionError(f"Tab does not reach {wanted}")


def test_by_keyboard_alone(visit, index):
    visit = visit().ready()
    page = visit.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "results"
    page.reload()
    visit.ready()
    tab_to(page, "#text", most=3)
    page.keyboard.type("six hundred")
    visit.search(lambda: page.keyboard.press("Enter"))
    assert visit.shown() == found(index, text="six hundred")
    tab_to(page, ".picture")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.matches('.picture')")
    tab_to(page, ".actions button")
    visit.search(lambda: page.keyboard.press("Enter"))
    assert "picture" in visit.text("#parts")
    assert page.evaluate("document.activeElement.id") == "results"
    tab_to(page, "#map")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")  # past the end: no trap
    assert page.evaluate("document.activeElement.matches('body, .skip, #text')")


def test_a_phone_shows_it_without_scrolling_sideways(visit):
    visit = visit(viewport={"width": 360, "height": 740}, has_touch=True).ready()
    page, file = visit.page, io.BytesIO()
    soundfile.write(file, 0.1 * np.sin(np.arange(8000) / 5), 8000, format="WAV")
    page.click("summary")
    page.click("#add-filter")
    visit.search_file({"name": f"{'long' * 20}.wav", "mimeType": "audio/wav", "buffer": file.getvalue()})
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.click(".picture >> nth=0")
    box = page.locator("dialog").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360


def luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    return float(
        np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    )


def test_colours_stand_out_from_the_ground(visit):
    page = visit().page
    marks = ("image", "text", "audio", "point-cloud")
    names = ["card", "ground", "ink", "soft", "link", "bad", *marks]
    style = """names => names.map((name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim())"""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        light = dict(zip(names, map(luminance, page.evaluate(style, names)), strict=True))
        assert (light["ground"] < 0.1) == (scheme == "dark")
        for name in names[2:]:
            for ground in names[:2]:
                low, high = sorted((light[name], light[ground]))
                least = 3 if name in marks else 4.5  # those of WCAG for marks and for text
                assert (high + 0.05) / (low + 0.05) >= least, (scheme, name, ground)


def test_everything_has_a_name_and_a_place(visit):
    page = visit().ready().page
    page.click("summary")
    page.click("#add-filter")
    unnamed = """[...document.querySelectorAll('input, select, button, canvas[tabindex], audio')].filter((each) =>
        !each.labels?.length && !each.getAttribute('aria-label') && !each.textContent.trim()).map((each) => each.outerHTML)"""
    assert page.evaluate(unnamed) == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((each) => each.id)")
    assert len(set(ids)) == len(ids)
    tree = page.locator("body").aria_snapshot()
    for expected in (
        "banner",
        "main",
        "search",
        'region "Ask"',
        'region "Results"',
        'region "Map of the corpus"',
        "status",
    ):
        assert expected in tree, expected
    for heading in ('heading "cmcr" [level=1]', 'heading "Sounds, by mini-clap itself" [level=3]'):
        assert heading in tree, heading


def test_demo_serves_what_is_there(out, monkeypatch):
    served = []
    monkeypatch.setattr("cmcr.web.server.serve", lambda folder, **options: served.append((folder, options["port"])))
    before = (out / "search" / "index" / MANIFEST).read_bytes()
    assert main(["demo", "--serve", "--port", "0", "--out", str(out)]) == 0
    assert served == [(out / "search" / "index", 0)]
    assert (out / "search" / "index" / MANIFEST).read_bytes() == before
