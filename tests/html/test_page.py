import itertools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from myna.errors import OutputError
from myna.html.page import (
    Chart,
    Curve,
    Facts,
    Fold,
    Page,
    Part,
    Picture,
    Printed,
    Reference,
    Section,
    SideBySide,
    Table,
    Text,
)
from myna.html.scripts import joined_modules

EVIL = "</script><script>alert('1')</script><img src=x onerror=\"alert(1)\">"
PNG = b"\x89PNG\r\n\x1a\nrest"


def curve(**more: object) -> Curve:
    return Curve(EVIL, {"tokens": [1, 2, 3]}, [3.0, float("nan"), 1.0], group=EVIL, **more)


class Seen(HTMLParser):
    """What a browser would see: tags with their attributes, and the texts outside of scripts."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def everything() -> Page:
    blocks = [
        Text(EVIL),
        Facts([(EVIL, EVIL)]),
        Table([EVIL], [[EVIL], [1234567], [0.25], [None]], EVIL),
        Picture(PNG, EVIL, EVIL),
        Chart(EVIL, [curve()], [Reference(1.0, EVIL)], notes=[EVIL]),
        Printed(f"\n{EVIL}", EVIL),
        SideBySide([Part(EVIL, [Text("a")]), Fold(EVIL, [Text("b")])]),
    ]
    return Page(EVIL, [Section(EVIL, blocks)] * 5, lead=EVIL, foot=EVIL)


def test_what_is_given_is_text():
    seen = Seen(everything().html())
    scripts = seen.named("script")
    assert [one.get("type") for one in scripts] == ["application/json"] * 5 + [None]
    assert {one["src"] for one in seen.named("img")} == {"data:image/png;base64,iVBORw0KGgpyZXN0"}
    assert not any(name.startswith("on") or name == "style" for _, one in seen.tags for name in one)
    assert sum(EVIL in text for text in seen.texts) > 40


def test_a_page_asks_for_nothing_and_its_policy_names_what_runs():
    page = everything().html()
    seen = Seen(page)
    links = [value for _, one in seen.tags for name in ("src", "href") if (value := one.get(name))]
    assert all(link.startswith(("data:", "#")) for link in links)
    assert "@import" not in page
    assert "url(" not in page
    policy = next(one["content"] for one in seen.named("meta") if "http-equiv" in one)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


def test_headings_come_in_order():
    levels = [int(tag[1]) for tag, _ in Seen(everything().html()).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))


def test_a_chart_keeps_finite_values_alone():
    data = json.loads(re.search(r"json\">(.*?)</script>", Chart("t", [curve()]).html())[1])
    assert data["curves"][0]["y"] == [3, 1]
    assert data["curves"][0]["x"] == {"tokens": [1, 3]}


def test_numbers_of_numpy_are_written():
    html = Chart("t", [Curve("a", {"steps": np.arange(2)}, np.float32([0.1, 2e9]))]).html()
    assert '"y": [0.1, 2000000000]' in html


def test_a_picture_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="PNG and SVG"):
        Picture(b"GIF89a", "alt").html()


def test_half_of_a_surrogate_pair_can_be_written(tmp_path):
    Page("a \ud800", [Section("b", [Printed("\udcff", "c")])]).write(tmp_path / "new" / "page.html")
    assert "<h1>a ?</h1>" in (tmp_path / "new" / "page.html").read_text("utf-8")


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        Page("a", []).write(tmp_path / "file" / "page.html")


def test_a_module_of_an_unknown_form_is_refused(monkeypatch):
    monkeypatch.setattr("myna.html.scripts.asset", lambda name: 'import * as x from "./y.js";')
    joined_modules.cache_clear()
    with pytest.raises(ValueError, match=r"import \* as x"):
        joined_modules("x.js")
    joined_modules.cache_clear()
