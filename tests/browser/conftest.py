"""The built book in a headless Chromium: what a test needs to open its pages.

`make accessibility` builds the book and runs this folder. BOOK_HTML names another folder of built pages,
CHROMIUM another browser. Nothing is skipped: without a browser or without pages the tests stop with one error.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

try:
    from playwright.sync_api import Browser, Page, Request, Response, Route, sync_playwright
except ImportError as error:
    raise pytest.UsageError("tests/browser: expected Playwright, found none: run `make accessibility`") from error

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from pdf import Refused, find_chromium  # noqa: E402

HTML = (ROOT / os.environ.get("BOOK_HTML", "_build/html")).resolve()
NODE_MODULES = ROOT / "node_modules"


def stop(message: str) -> None:
    """End the run: none of these tests can say anything without it."""
    pytest.exit(f"tests/browser: {message}", returncode=1)


def chromium() -> str:
    try:
        return find_chromium()
    except Refused as missing:
        stop(str(missing))
        raise


def book_pages() -> list[str]:
    """The built pages, by their path in the site; the index alone before the book is built."""
    found = (path.relative_to(HTML) for path in HTML.rglob("*.html"))
    return sorted(path.as_posix() for path in found if "_static" not in path.parts) or ["index.html"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with an argument `path` runs on every page of the book, unless it names its own."""
    own = any("path" in str(mark.args[0]) for mark in metafunc.definition.iter_markers("parametrize"))
    if "path" in metafunc.fixturenames and not own:
        metafunc.parametrize("path", book_pages())


class Handler(SimpleHTTPRequestHandler):
    """Files with the types that a browser insists on, and no log."""

    protocol_version = "HTTP/1.1"
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".webp": "image/webp",
        ".woff": "font/woff",
        ".woff2": "font/woff2",
        ".onnx": "application/octet-stream",
    }

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a page that is closed hangs up on what it was still loading


@dataclass
class Site:
    """The book as a server on the loopback interface."""

    url: str  # ends with a slash
    root: Path


@dataclass
class Visit:
    """An open page, and what it did on the network."""

    page: Page
    asked: list[str] = field(default_factory=list)  # every address, in order
    outside: list[str] = field(default_factory=list)  # those that lead out of the site; they are refused
    missing: list[str] = field(default_factory=list)  # those that the server does not have
    loaded: dict[str, int] = field(default_factory=dict)  # bytes of each file as served, without compression
    errors: list[str] = field(default_factory=list)  # errors of scripts, and what they wrote to the console as errors


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    if not (HTML / "index.html").is_file():
        stop(f"BOOK_HTML: expected a folder with the built book, found no {HTML / 'index.html'}: run `make book`")
    server = Server(("127.0.0.1", 0), partial(Handler, directory=str(HTML)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Site(f"http://127.0.0.1:{server.server_port}/", HTML)
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The folder of npm's packages that the tests read (axe-core)."""
    if not (NODE_MODULES / "axe-core" / "axe.min.js").is_file():
        stop(f"expected npm's packages, found no {NODE_MODULES.name}/axe-core: run `make accessibility`")
    return NODE_MODULES


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    executable = chromium()
    # its own sandbox needs rights that root, a container or a runner often has not; the pages are ours
    options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=options)
        yield opened
        opened.close()


def settle(page: Page) -> None:
    """Wait until the formulas are typeset and the fonts are there."""
    page.wait_for_load_state("load")
    page.evaluate("document.fonts.ready.then(() => true)")  # KaTeX typesets before the page counts as loaded


def scroll_through(page: Page) -> None:
    """Scroll to the bottom, as a reader would, so that images which load late are loaded, and back."""
    page.evaluate(
        """async () => {
            for (let y = 0; y < document.documentElement.scrollHeight; y += innerHeight) {
                scrollTo({top: y, behavior: "instant"});
                await new Promise(requestAnimationFrame);
            }
            await Promise.all([...document.images].map(image => {
                image.loading = "eager";
                return image.decode().catch(() => null);
            }));
            scrollTo({top: 0, behavior: "instant"});
        }"""
    )


OpenPage = Callable[..., Visit]


@pytest.fixture
def open_page(site: Site, browser: Browser) -> Iterator[OpenPage]:
    """A function that opens a page of the book; afterwards, a request that would leave the site fails the test.

    `open_page("live.html", width=390, height=844, theme="dark", javascript=False, touch=True)` gives a Visit.
    Each page has a profile of its own: no cache, nothing stored. `wait=False` returns before formulas are typeset.
    Further arguments go to Playwright's `new_context`.
    """
    visits: list[Visit] = []

    def visit(
        path: str = "index.html",
        *,
        width: int = 1280,
        height: int = 900,
        theme: str = "light",
        javascript: bool = True,
        touch: bool = False,
        wait: bool = True,
        **options: Any,
    ) -> Visit:
        options = {"reduced_motion": "reduce", "color_scheme": theme, "has_touch": touch, "is_mobile": touch} | options
        context = browser.new_context(
            viewport={"width": width, "height": height}, java_script_enabled=javascript, **options
        )
        context.set_default_timeout(20_000)
        if javascript:
            context.add_init_script(
                f"localStorage.setItem('mode', '{theme}'); localStorage.setItem('theme', '{theme}')"
            )
        page = context.new_page()
        made = Visit(page)
        visits.append(made)

        def ask(request: Request) -> None:
            made.asked.append(request.url)

        def refuse(route: Route) -> None:
            made.outside.append(route.request.url)
            route.abort()

        def receive(response: Response) -> None:
            if response.url.startswith(site.url):
                made.loaded[response.url] = int(response.headers.get("content-length", 0))
                if response.status >= 400:
                    made.missing.append(response.url)

        page.on("request", ask)
        page.on("response", receive)
        page.on("pageerror", lambda error: made.errors.append(str(error)))
        page.on("console", lambda said: made.errors.append(said.text) if said.type == "error" else None)
        local = (site.url, "data:", "blob:", "about:")
        context.route(lambda url: not url.startswith(local), refuse)
        page.goto(site.url + path)
        if wait and javascript:
            settle(page)
        return made

    yield visit
    for made in visits:
        made.page.context.close()
    outside = [address for made in visits for address in made.outside]
    assert not outside, f"requests that leave the site: {outside}"
