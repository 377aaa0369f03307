"""Projects whose edges a person wrote down by the rules of their language, against what the linker finds."""

from __future__ import annotations

import pytest

from tests.support.hand_checked import LANGUAGES, PROJECTS, Score, checked, files, found

SHARE_MIN = 0.95
REFERENCES_SHARE_MIN = 0.85
REFERENCES_WRONG_MAX = 1

each_language = pytest.mark.parametrize("language", LANGUAGES)


@each_language
def test_imports_lead_to_the_files_that_a_person_found(language: str) -> None:
    expected, edges = checked(language).imports, found(language).edges("imports")
    score = Score.of(expected, edges)
    differences = f"not found: {sorted(expected - edges)}\nnot there: {sorted(edges - expected)}"
    assert score.precision >= SHARE_MIN and score.recall >= SHARE_MIN, differences


@each_language
def test_what_leads_out_of_a_project_and_what_is_missing_is_told_apart(language: str) -> None:
    assert found(language).external == checked(language).external
    assert found(language).missing == checked(language).missing


@each_language
def test_names_lead_to_what_they_mean_and_seldom_to_what_only_has_their_name(language: str) -> None:
    edges = found(language).edges("references")
    wanted, unwanted = checked(language).references, checked(language).not_references
    assert len(wanted & edges) >= REFERENCES_SHARE_MIN * len(wanted), sorted(wanted - edges)
    assert len(unwanted & edges) <= REFERENCES_WRONG_MAX, sorted(unwanted & edges)


@each_language
def test_a_list_names_files_that_there_are_and_the_project_is_of_a_size_to_tell(language: str) -> None:
    one = checked(language)
    named = {
        path for pairs in (one.imports, one.references, one.not_references) for pair in pairs for path in pair
    }
    named |= {path for path, _ in one.external | one.missing}
    assert {path for path in named if not (PROJECTS / language / path).is_file()} == set()
    assert files(language) >= 20
    assert len(one.imports) >= 20
