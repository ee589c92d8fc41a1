"""The site of README and docs/: no warning when it is built, no dead link, and no request to any other server."""

import contextlib
import doctest
import functools
import http.server
import importlib.util
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit

import pytest

pytest.importorskip("material")

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. A warning of the build fails here."""
    folder = tmp_path_factory.mktemp("site") / "site"
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "MYNA_REPOSITORY": ""}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "scripts" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Addresses(HTMLParser):
    """What a page links to, and what a browser fetches to show it."""

    FETCHED = (("script", "src"), ("link", "href"), ("img", "src"), ("img", "srcset"), ("iframe", "src"))
    FETCHED += (("source", "src"), ("video", "src"), ("object", "data"), ("use", "href"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if tag == "a" and name == "href" and value:
                self.links.append(value)
            elif (tag, name) in self.FETCHED and value:
                self.fetched.append(value)
            elif name == "id" and value:
                self.ids.add(value)


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Addresses]:
    return {path: Addresses(path.read_text("utf-8")) for path in site.rglob("*.html")}


def test_what_a_browser_fetches_is_on_the_site(site: Path, pages: dict[Path, Addresses]) -> None:
    for path, page in pages.items():
        assert not [one for one in page.fetched if urlsplit(one).netloc], path
    for style in site.rglob("*.css"):
        assert not re.findall(
            r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^\"')]*", style.read_text("utf-8")
        ), style
    assert sum(len(page.fetched) for page in pages.values()) > len(pages)


def test_every_link_leads_to_a_page_of_the_site_or_says_that_it_leaves(
    site: Path, pages: dict[Path, Addresses]
) -> None:
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or path.name == "404.html":  # which is shown under any address
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_relative_to(site.resolve()), f"{path}: {link}"
            assert target.is_file(), f"{path}: {link}"
            if parts.fragment and target in pages and parts.fragment != "__skip":
                assert unquote(parts.fragment) in pages[target].ids, f"{path}: {link}"


def test_every_page_of_docs_is_in_the_list_of_pages(site: Path, pages: dict[Path, Addresses]) -> None:
    home = site / "index.html"
    menu = home.read_text("utf-8").partition('data-md-component="sidebar"')[2].partition("<article")[0]
    listed = Addresses(menu).links
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).with_suffix(".html").as_posix().replace("README.html", "index.html")
        assert name in listed, f"{page} is in no line of `nav` in mkdocs.yml"
    chapters = [int(found[1]) for one in listed if (found := re.match(r"lecture/(\d+)-", one))]
    assert chapters == sorted(chapters)
    assert len(set(chapters)) == len(list((DOCS / "lecture").glob("[0-9]*.md")))


def test_a_link_out_of_docs_shows_the_file_as_it_is(site: Path) -> None:
    chapter = (site / "lecture" / "02-byte-pair-encoding.html").read_text("utf-8")
    assert 'href="../source/src/myna/text/bpe.py.html"' in chapter
    page = (site / "source" / "src" / "myna" / "text" / "bpe.py.html").read_text("utf-8")
    assert "Byte pair encoding from first principles" in page
    assert 'class="nc">' in page or 'class="k">' in page  # coloured as Python


def test_scripts_of_the_lecture_can_be_downloaded(site: Path) -> None:
    scripts = list((DOCS / "lecture").rglob("*.py"))
    assert scripts
    for script in scripts:
        assert (site / script.relative_to(DOCS)).read_bytes() == script.read_bytes()


def test_a_repository_gets_a_link_from_each_file(hooks: ModuleType) -> None:
    address = "https://example.org/myna"
    assert f"({address}/blob/HEAD/LICENSE)" in hooks.source_page("LICENSE", f"{address}/")
    assert "](" not in hooks.source_page("LICENSE", "")


def test_links_in_code_stay_as_they_are(hooks: ModuleType) -> None:
    changed = hooks._outside_fences("[a](b)\n```\n[a](b)\n```\n[a](b)", lambda text: text.replace("b", "c"))
    assert changed == "[a](c)\n```\n[a](b)\n```\n[a](c)"


def test_the_example_of_the_hook(hooks: ModuleType) -> None:
    ran = doctest.testmod(hooks)
    assert ran.attempted
    assert not ran.failed


def test_no_page_shows_what_markdown_left_over(site: Path, pages: dict[Path, Addresses]) -> None:
    for path in pages.keys() - set((site / "source").rglob("*.html")):
        article = path.read_text("utf-8").partition("<article")[2].partition("</article")[0]
        prose = re.sub(r"<pre.*?</pre>|<code>.*?</code>|<!--.*?-->", "", article, flags=re.DOTALL)
        text = re.sub(r"<[^>]+>", "", prose)
        assert not re.findall(r"```|\*\*|\]\(|^\|.*\|$|&lt;!--|&lt;details", text, re.MULTILINE), path
        assert not re.findall(r"<p>(?:- |\d+\. )", prose), path


@contextlib.contextmanager
def listening(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def visit(browser: "Browser", site: Path) -> "Iterator[Page]":
    """A page of the width of a phone, on the site's start. It may ask the site alone, and must not complain."""
    with listening(site) as url:
        context = browser.new_context(
            viewport={"width": 390, "height": 844}, color_scheme="light", base_url=url
        )
        page, asked, said = context.new_page(), [], []
        page.set_default_timeout(60_000)  # on a busy machine
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto("index.html")
        yield page
        context.close()
    assert asked
    assert not [one for one in asked if not one.startswith((url, "data:", "blob:"))]
    assert not said


def test_no_page_is_wider_than_a_phone(visit: "Page") -> None:
    code = "source/src/myna/text/bpe.py"
    for name in ("index", "performance", "cluster", "contributing", "lecture/15-many-gpus", code):
        visit.goto(urljoin(visit.url, f"/{name}.html"))
        assert visit.evaluate("document.documentElement.scrollWidth") == 390, name


def test_search_finds_a_page_and_colours_switch(visit: "Page") -> None:
    visit.set_viewport_size({"width": 1280, "height": 900})
    visit.locator("input.md-search__input").click()
    visit.keyboard.type("gradient accumulation")
    found = visit.locator(".md-search-result__link").first
    found.wait_for()
    assert "accumulation" in (found.get_attribute("href") or "")
    visit.keyboard.press("Escape")
    background = "getComputedStyle(document.body).backgroundColor"
    light = visit.evaluate(background)
    visit.locator('label[title="Switch to dark mode"]').click()
    visit.wait_for_function(f"{background} !== {light!r}")
