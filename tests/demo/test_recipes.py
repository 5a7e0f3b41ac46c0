"""The page of recipes: its quotes are running code, and no recipe is forgotten."""

from __future__ import annotations

import re

import pytest

from tests.serving import ROOT

FOLDER = ROOT / "demo" / "recipes"

# Modules that are no recipe: the cache's database.
APART = {"__init__", "database"}

NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in APART)


def sections() -> dict[str, str]:
    """The parts of the page, by the recipe to which each links."""
    page = (ROOT / "docs" / "recipes.md").read_text()
    found = {}
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        (link,) = re.findall(r"\(\.\./demo/recipes/(\w+)\.py\)", section)
        found[link] = section
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_has_its_part_which_quotes_it_and_says_how_to_try_it(name: str) -> None:
    section = sections()[name]
    source = (FOLDER / f"{name}.py").read_text()
    assert f"asgi-ipc serve demo.recipes.{name}:app --workers 4" in source
    quotes = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert quotes
    for quote in quotes:
        assert quote in source
    assert "**Guaranteed.**" in section
    assert "**Not guaranteed.**" in section
    assert re.search(r"^    .*http|^    .*ws:", section, re.MULTILINE)


def test_the_page_links_to_what_is_there() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text()
    assert sections().keys() == set(NAMES)
    headings = {
        re.sub(r"\W+", "-", heading.lower()) for heading in re.findall(r"^## (.*)$", page, re.MULTILINE)
    }
    assert set(re.findall(r"\(#([\w-]+)\)", page)) == headings
    for link in re.findall(r"\((\.\./[\w/.]+)\)", page):
        assert (ROOT / "docs" / link).exists()
