"""The search of the book finds what notebooks say, and asks nobody."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("anemometer", "foundations/02-graph-convolution.html"),  # a word of a notebook's text
        ("kriging", "challenges/14-missing-data.html"),
        ("Chebyshev filter", "glossary.html"),
    ],
)
def test_a_word_is_found_where_it_stands(open_page, words, page):
    visit = open_page(f"search.html?q={words.replace(' ', '+')}")
    visit.page.wait_for_selector("#search-results li a")
    visit.page.wait_for_function(
        "() => /[Ss]earch finished|found/.test(document.querySelector('#search-results').innerText)"
    )
    found = visit.page.eval_on_selector_all("#search-results li a", "all => all.map(a => a.pathname)")
    assert any(path.endswith(page) for path in found), found
    assert not visit.outside


def test_what_is_nowhere_is_not_found(open_page):
    visit = open_page("search.html?q=xylophone")
    visit.page.wait_for_function("() => /did not match/.test(document.querySelector('#search-results').innerText)")
    assert not visit.page.query_selector_all("#search-results li a")
