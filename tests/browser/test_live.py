"""The page with a network in it: equal to the package, and alive by mouse, touch and keyboard."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stgcn_lab import graphs

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("live_benchmark", ROOT / "benchmarks" / "live.py")
live = importlib.util.module_from_spec(spec)
spec.loader.exec_module(live)

RUNS = "() => document.querySelector('[data-live=status]').textContent.includes('runs in this page')"
COLUMNS = {"forecast": 6, "change": 7, "persistence": 8}


@pytest.fixture
def page(open_page):
    """The page with its network loaded, and no error on the way."""
    visit = open_page("live.html", height=1400)
    visit.page.wait_for_function(RUNS)
    yield visit.page
    assert not visit.errors
    assert not visit.missing


@pytest.fixture
def data(site):
    return json.loads((site.root / "_live" / "data.json").read_text(encoding="utf-8"))


def index(data: dict[str, Any], code: str) -> int:
    return [one["code"] for one in data["stations"]].index(code)


def column(page: Any, name: str = "forecast") -> list[float]:
    """A column of the table of all numbers, which stands in a closed fold."""
    texts = page.eval_on_selector_all(
        "[data-live=numbers] tbody tr", f"rows => rows.map(row => row.cells[{COLUMNS[name]}].textContent)"
    )
    return [float(text.replace("−", "-")) if text != "–" else np.nan for text in texts]


def sums(page: Any) -> str:
    """The last line under the row of the operator."""
    return page.inner_text("[data-live=row] tfoot")


def choose(page: Any, data: dict[str, Any], code: str) -> None:
    page.select_option("[data-live=station]", str(index(data, code)))


def centre(page: Any, selector: str) -> tuple[float, float]:
    box = page.locator(selector).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def dot(data: dict[str, Any], code: str) -> str:
    return f".live-node[data-i='{index(data, code)}'] .live-dot"


def edge(data: dict[str, Any], one: str, other: str) -> str:
    low, high = sorted((index(data, one), index(data, other)))
    return f".live-edge[data-pair='{low}-{high}'] .live-grip"


# ---------------------------------------------------------------------------- the same numbers


def test_network_in_the_browser_is_that_of_pytorch(page, site):
    network, _ = live.stored_network()
    draw = torch.Generator().manual_seed(0)
    cases = []
    for _ in range(8):
        places = torch.rand(2, 12, generator=draw).double()
        graph = graphs.knn_graph(52 + 3 * places[0], -10 + 4 * places[1], k=3)
        cases.append((3 * torch.randn(1, 5, 12, 2, generator=draw), graphs.gcn_operator(graph, sparse=False)))
    found = page.evaluate(
        """async ({folder, cases}) => {
            const {loadNetwork, run} = await import(`${folder}model.js`);
            const network = await loadNetwork(new URL(folder));
            const said = [];
            for (const [x, operator] of cases) said.push(await run(network, Float32Array.from(x), operator));
            return said;
        }""",
        {"folder": f"{site.url}_live/", "cases": [(x.flatten().tolist(), a.tolist()) for x, a in cases]},
    )
    with torch.no_grad():
        expected = [network(x, operator)[0, 0, :, 0].numpy() for x, operator in cases]
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_graph_in_the_browser_is_that_of_the_package(page, site, data):
    draw = np.random.default_rng(0)
    home = np.array([[one["lat"], one["lon"]] for one in data["stations"]])
    cases = [(home, data["neighbours"], data["lengthScale"])]
    for k in (1, 2, 4, 11):
        cases.append((home + draw.normal(0, 1, home.shape), k, float(draw.uniform(50, 300))))
    found = page.evaluate(
        """async ({folder, cases}) => {
            const {nearestPairs, adjacency, operator} = await import(`${folder}graph.js`);
            return cases.map(([places, k, lengthScale]) => {
                places = places.map(([lat, lon]) => ({lat, lon}));
                const pairs = nearestPairs(places, k);
                return [pairs, operator(adjacency(places, pairs, lengthScale)).map(row => [...row])];
            });
        }""",
        {"folder": f"{site.url}_live/", "cases": [(places.tolist(), k, scale) for places, k, scale in cases]},
    )
    for (places, k, scale), (pairs, operator) in zip(cases, found, strict=True):
        graph = graphs.knn_graph(*places.T, k=k, length_scale=scale)
        assert sorted([*pairs, *([j, i] for i, j in pairs)]) == sorted(graph.edge_index.T.tolist())
        np.testing.assert_allclose(operator, graphs.gcn_operator(graph, sparse=False).numpy(), atol=1e-6)


def test_stations_in_one_place_and_values_that_cannot_be(page, site):
    found = page.evaluate(
        """async (folder) => {
            const {nearestPairs, adjacency, operator, steps} = await import(`${folder}graph.js`);
            const places = [{lat: 53, lon: -8}, {lat: 53, lon: -8}, {lat: 54, lon: -8}];
            const pairs = nearestPairs(places, 1);
            const weights = adjacency(places, pairs, 150);
            const cut = new Set(pairs.map(([i, j]) => `${i}-${j}`));
            let error = "";
            try { nearestPairs([{lat: 100, lon: 0}], 1); } catch (found) { error = found.message; }
            const alone = operator(adjacency(places, pairs, 150, cut)).map(row => [...row]);
            const {inputs} = await import(`${folder}model.js`);
            let wild = "";
            try { inputs([[-1]], [[3]], [0.5], [true]); } catch (found) { wild = found.message; }
            return {together: weights[0][1], alone, steps: steps(weights, 2, 2).map(String), error, wild};
        }""",
        f"{site.url}_live/",
    )
    assert found["together"] == 1
    assert found["alone"] == np.eye(3).tolist()
    assert sorted(found["steps"]) == ["0", "1", "2"]
    assert "expected degrees" in found["error"]
    assert "100" in found["error"]
    assert "expected 0 to 100 m/s, found -1" in found["wild"]


def test_experiments_end_as_the_package_says(page, data):
    buttons = page.locator("[data-do]")
    assert buttons.count() == len(data["experiments"])
    for i in range(buttons.count()):
        plan = json.loads(buttons.nth(i).get_attribute("data-do"))
        (name,) = (name for name, one in data["experiments"].items() if one["plan"] == plan)
        buttons.nth(i).click()
        expected = np.array(data["experiments"][name]["speed"])
        page.wait_for_timeout(50)
        np.testing.assert_allclose(column(page), expected, atol=0.0501, err_msg=name)
        before = next(days for days in data["days"] if days["key"] == plan["days"])["forecast"]
        np.testing.assert_allclose(column(page, "change"), expected - before, atol=0.0501, err_msg=name)
    assert page.evaluate("document.activeElement.dataset.live") == "stage"


# ---------------------------------------------------------------------------- hands


def test_drag_by_mouse(page, data):
    place, before = page.inner_text("[data-live=place]"), page.inner_text("[data-live=said]")
    x, y = centre(page, dot(data, "BEL"))
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 40, steps=4)
    page.mouse.up()
    page.mouse.move(x + 200, y + 40)  # released: it stays
    assert page.inner_text("[data-live=place]") != place
    assert page.inner_text("[data-live=said]") != before
    found = centre(page, dot(data, "BEL"))
    assert np.allclose(found, (x + 60, y + 40), atol=2)
    assert np.any(np.array(column(page, "change")) != 0)
    page.click("[data-live=home]")
    assert page.inner_text("[data-live=said]") == before


def test_drag_by_touch(open_page, data):
    visit = open_page("live.html", width=390, height=844, touch=True)
    page = visit.page
    page.wait_for_function(RUNS)
    page.locator("[data-live=map]").scroll_into_view_if_needed()
    before, scrolled = page.inner_text("[data-live=said]"), page.evaluate("scrollY")
    x, y = centre(page, dot(data, "BEL"))
    touch = page.context.new_cdp_session(page)
    for kind, steps in (("touchStart", [0]), ("touchMove", [10, 30, 60]), ("touchEnd", [None])):
        for step in steps:
            points = [] if step is None else [{"x": x + step, "y": y + step}]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.wait_for_timeout(100)
    assert page.evaluate("scrollY") == scrolled  # the station moved, not the page
    assert np.allclose(centre(page, dot(data, "BEL")), (x + 60, y + 60), atol=3)
    assert page.inner_text("[data-live=said]") != before
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.touchscreen.tap(*centre(page, dot(data, "DUB")))
    assert page.inner_text("[data-live=said]").startswith("Dublin")
    page.touchscreen.tap(*centre(page, edge(data, "DUB", "ROS")))
    assert page.locator(".live-edge.is-cut").count() == 1
    assert not visit.errors


def test_move_by_keyboard(page, data):
    node = page.locator(f".live-node[data-i='{index(data, 'VAL')}']")
    node.focus()
    page.keyboard.press("Enter")
    before, place = page.inner_text("[data-live=said]"), page.inner_text("[data-live=place]")
    assert before.startswith("Valentia")
    for key in ("ArrowRight", "Shift+ArrowUp", "Shift+ArrowRight"):
        page.keyboard.press(key)
    assert page.inner_text("[data-live=place]") != place
    assert page.inner_text("[data-live=said]") != before
    assert node.evaluate("node => node === document.activeElement")
    for _ in range(40):
        page.keyboard.press("Shift+ArrowLeft")  # it stops at the edge of the map
    left = node.evaluate("node => Number(node.getAttribute('transform').match(/[0-9.]+/)[0])")
    assert 10 <= left <= 20


def test_edge_by_mouse_and_by_keyboard(page, data):
    before = sums(page)
    page.mouse.click(*centre(page, edge(data, "BEL", "CLA")))
    assert page.locator(".live-edge.is-cut").count() == 1
    assert sums(page) != before
    assert np.any(np.array(column(page, "change")) != 0)
    button = page.locator("[data-live=row] button", has_text="Restore")
    button.focus()
    page.keyboard.press("Enter")
    assert page.locator(".live-edge.is-cut").count() == 0
    assert sums(page) == before
    assert page.evaluate("document.activeElement.textContent") == "Cut"  # the focus has stayed
    page.keyboard.press("Space")
    assert page.locator(".live-edge.is-cut").count() == 1
    page.click("text=All edges, to cut or restore")
    page.locator("[data-live=edge-buttons] .is-cut button").focus()
    page.keyboard.press("Enter")
    assert np.all(np.array(column(page, "change")) == 0)


def test_all_edges_cut_leaves_each_station_to_itself(page, data):
    page.click("text=All edges, to cut or restore")
    for _ in range(page.locator("[data-live=edge-buttons] button").count()):
        page.locator("[data-live=edge-buttons] button", has_text="Cut").first.click()
    assert page.locator(".live-edge:not(.is-cut)").count() == 0
    assert page.inner_text("[data-live=row] tbody tr td >> nth=0") == "1.00"
    assert page.inner_text("[data-live=said]").endswith("It hears nobody but itself.")
    np.testing.assert_allclose(column(page), data["experiments"]["no graph"]["speed"], atol=0.0501)


def test_days_presets_silence_and_undo(page, data):
    first = column(page)
    slider = page.locator(".live-slide input").last
    slider.focus()
    page.keyboard.press("End")
    assert slider.get_attribute("aria-valuetext") == "30.0 m/s"
    assert "the network guesses" in page.inner_text("[data-live=said]")
    i = index(data, "BEL")
    assert column(page)[i] > first[i]
    page.click("[data-live=reset]")
    assert column(page) == first
    assert page.is_disabled("[data-live=reset]")
    page.uncheck("[data-live=reports]")
    assert np.isnan(column(page, "persistence")[i])
    assert slider.is_disabled()
    assert column(page)[i] != first[i]
    page.check("[data-live=reports]")
    for days in data["days"]:
        page.select_option("[data-live=days]", days["key"])
        np.testing.assert_allclose(column(page), days["forecast"], atol=0.0501)
        np.testing.assert_allclose(column(page, "persistence"), days["persistence"], atol=0.0501)


def test_views_of_the_map(page, data):
    def numbers() -> list[str]:
        return page.eval_on_selector_all(".live-number", "all => all.map(one => one.textContent)")

    tomorrow, days = numbers(), data["days"]
    (days,) = (one for one in data["days"] if one["key"] == page.input_value("[data-live=days]"))
    assert tomorrow == [f"{value:.1f}" for value in days["forecast"]]
    for view in ("change", "persistence", "today"):
        page.locator(f"[name=live-view][value={view}]").check(force=True)
        shown = [float(text.replace("−", "-")) for text in numbers()]
        expected = {
            "change": np.zeros(12),
            "persistence": np.subtract(days["forecast"], days["persistence"]),
            "today": days["wind"][-1],
        }[view]
        np.testing.assert_allclose(shown, expected, atol=0.0501)


def test_ears_hear_what_changed(page, data):
    assert page.inner_text("[data-live=announce]") == ""  # nothing is said before something has changed
    choose(page, data, "DUB")
    page.wait_for_function("() => document.querySelector('[data-live=announce]').textContent.startsWith('Dublin')")
    labels = page.eval_on_selector_all(".live-node", "all => all.map(one => one.getAttribute('aria-label'))")
    assert all("metres a second" in label for label in labels)
    assert page.locator(".live-node[aria-pressed=true]").count() == 1


# ---------------------------------------------------------------------------- without a script, a network, a server


def test_without_javascript_the_page_is_complete(open_page, data):
    page = open_page("live.html", javascript=False).page
    days = data["days"]
    assert page.locator(".live-edge").count() == sum(np.count_nonzero(row) - 1 for row in data["operator"]) // 2
    assert page.locator(".live-number").count() == 12
    assert page.locator(".live-land").get_attribute("d").count("M") >= 2
    assert not page.is_visible("[data-live=controls]")
    assert not page.is_visible("[data-do] >> nth=0")
    text = page.inner_text("main")
    assert text.count("What the package found:") == len(data["experiments"])
    assert "Without JavaScript" in text
    assert "Persistence says" in text
    assert page.locator("[data-live=numbers] tbody tr").count() == 12
    assert page.locator("[data-live=days] option").count() == len(days)


def test_without_the_network_the_graph_goes_on(open_page, data):
    visit = open_page("index.html")
    page = visit.page
    page.route("**/*.wasm", lambda route: route.fulfill(status=404, body=""))
    page.goto(page.url.replace("index.html", "live.html"))
    page.wait_for_selector("[data-live=status].is-error")
    assert "404" in page.inner_text("[data-live=status]")
    forecast, row = column(page), sums(page)
    assert not np.isnan(forecast).any()  # the one made when the book was built
    page.mouse.click(*centre(page, edge(data, "BEL", "CLA")))
    assert sums(page) != row
    assert np.isnan(column(page)).all()
    page.click("[data-live=reset]")
    assert column(page) == forecast


def test_while_the_network_is_on_its_way_the_page_is_usable(open_page, data):
    visit = open_page("index.html")
    page, held = visit.page, []
    page.route("**/*.wasm", lambda route: held.append(route))
    page.goto(page.url.replace("index.html", "live.html"))
    page.wait_for_function("() => document.querySelector('[data-live=status]').textContent.includes('on its way')")
    page.mouse.click(*centre(page, edge(data, "BEL", "CLA")))
    assert page.locator(".live-edge.is-cut").count() == 1
    page.wait_for_timeout(100)
    held[0].continue_()
    page.wait_for_function(RUNS)
    assert np.any(np.array(column(page, "change")) != 0)  # what was changed meanwhile counts
    assert not visit.errors


def test_without_its_data_the_page_says_so(open_page):
    visit = open_page("index.html")
    page = visit.page
    page.route("**/data.json", lambda route: route.fulfill(status=404, body=""))
    page.goto(page.url.replace("index.html", "live.html"))
    page.wait_for_selector("[data-live=status].is-error")
    assert "data.json" in page.inner_text("[data-live=status]")
    assert not page.is_visible("[data-live=controls]")


def test_from_disk_the_page_says_what_to_do(browser, site):
    context = browser.new_context()
    page = context.new_page()
    page.goto((site.root / "live.html").as_uri())
    assert "make serve" in page.inner_text("[data-live=status]")
    assert page.locator(".live-number").count() == 12
    context.close()


def test_only_this_page_asks_for_the_network(open_page):
    visit = open_page("live.html")
    visit.page.wait_for_function(RUNS)
    own = {url.rsplit("/", 1)[1] for url in visit.loaded if "/_live/" in url}
    assert own == {
        "live.css", "page.js", "graph.js", "model.js", "data.json", "network.onnx", "ort.wasm.bundle.min.mjs",
        "ort-wasm-simd-threaded.wasm",
    }  # fmt: skip
    assert len([url for url in visit.asked if url.endswith(".wasm")]) == 1
    other = open_page("index.html")
    assert not [url for url in other.asked if "_live" in url]
