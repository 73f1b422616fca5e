"""The site: what its pages show runs, it builds without a warning, and nothing is fetched."""

import contextlib
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import without_graphs

import kfusion as kf

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if BLOCK.search(page.read_text("utf-8"))]
NOTEBOOKS = sorted(DOCS.rglob("*.ipynb"))
# What a browser fetches by itself.
FETCHED = {"audio", "embed", "iframe", "img", "input", "link", "script", "source", "video"}


@pytest.fixture
def few_rows(tmp_path, monkeypatch, some_places):
    """A working directory of its own, and a fifth of the rows wherever a page loads data."""
    cropland = kf.datasets.load_cropland()
    part = cropland[np.flatnonzero(np.isin(cropland.groups, np.unique(cropland.groups)[::5]))]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kf.datasets, "load_landcover", lambda: some_places)
    monkeypatch.setattr(kf.datasets, "load_cropland", lambda: part)
    yield
    plt.close("all")


def run(blocks, name):
    scope: dict = {"__name__": "__main__"}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{name}, block {number}", "exec"), scope)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_what_a_page_shows_runs(page, few_rows):
    # Its one fit is long enough for graphs to pay.
    in_graphs = page.name == "tutorial.md"
    with contextlib.nullcontext() if in_graphs else without_graphs():
        run(BLOCK.findall(page.read_text(encoding="utf-8")), page.name)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_runs_from_top_to_bottom(notebook, few_rows):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in code)
    with without_graphs():
        run(["".join(cell["source"]) for cell in code], notebook.name)


def test_every_public_name_stands_on_one_page_of_the_reference():
    shown = re.findall(
        r"^::: kfusion\.(\w+)$",
        "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md")),
        re.MULTILINE,
    )
    assert sorted(shown) == kf.__all__


class Page(HTMLParser):
    """A page's ids, where its links go, and what its reader's browser fetches."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.fetched = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag in FETCHED:
            self.fetched += [given[key] for key in ("src", "href", "srcset") if given.get(key)]


class TestSite:
    @pytest.fixture(scope="class")
    @staticmethod
    def site(tmp_path_factory):
        config = pytest.importorskip("mkdocs.config")
        build = pytest.importorskip("mkdocs.commands.build")
        folder = tmp_path_factory.mktemp("site")
        loaded = config.load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(folder))
        loaded.plugins.on_startup(command="build", dirty=False)
        # Strict: any warning aborts.
        build.build(loaded)
        pages = {path: Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
        return folder, pages

    def test_all_pages_are_there(self, site):
        folder, pages = site
        for page in DOCS.rglob("*.md"):
            assert folder / page.relative_to(DOCS).with_suffix(".html") in pages

    def test_nothing_is_fetched_from_elsewhere(self, site):
        folder, pages = site
        asked = [url for page in pages.values() for url in page.fetched]
        asked += [
            url
            for style in folder.rglob("*.css")
            for url in re.findall(
                r"(?:url\(|@import\s*)[\"']?([^\"')\s]+)", style.read_text("utf-8")
            )
        ]
        assert any(url.endswith(".css") for url in asked)
        assert [url for url in asked if urlsplit(url).netloc] == []

    def test_links_within_the_site_lead_somewhere(self, site):
        folder, pages = site
        for path, page in pages.items():
            # The page of what is not found has links from the root of a host.
            for link in page.links if path.name != "404.html" else ():
                where = urlsplit(link)
                if where.scheme or where.netloc:
                    continue
                target = path.parent.joinpath(unquote(where.path)).resolve() if where.path else path
                assert target.is_file(), f"{path.relative_to(folder)} links {link}"
                if where.fragment and target in pages:
                    assert unquote(where.fragment) in {"__top", *pages[target].ids}, link

    def test_docstrings_are_shown_with_arguments_and_examples(self, site):
        folder, _ = site
        text = (folder / "reference" / "branches.html").read_text(encoding="utf-8")
        shown = re.sub(r"<[^>]+>", "", text.split('id="kfusion.branch_from"')[1])
        assert "Name of the layer to cut at" in shown
        assert ">>> branch = branch_from(trained" in html.unescape(shown)
        assert "Example:" not in shown
