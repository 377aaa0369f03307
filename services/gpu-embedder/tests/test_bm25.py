"""Code and prose become terms, terms become BM25."""

import subprocess
import sys
from collections import Counter
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pharos_embedder.bm25 import (
    _KNOWN_WORDS,
    _WORDS_KEPT_MAX,
    EMPTY_LEXICON,
    LENGTH_TYPICAL,
    STOP_WORDS,
    TERM_CHARACTERS_MAX,
    Lexicon,
    LexiconChange,
    SparseVector,
    Totals,
    document_terms,
    document_vector,
    matched_words,
    query_vector,
    stem,
    term_hash,
    tokens,
)

TOKENS = [
    ("HTTPServer", ["httpserver", "http", "server"]),
    ("http_server", ["httpserver", "http", "server"]),
    ("http-server", ["httpserver", "http", "server"]),
    ("parseJSONBody", ["parsejsonbody", "pars", "json", "body"]),
    ("MAX_QUEUE_SIZE", ["maxqueuesize", "max", "queu", "siz"]),
    ("sha256", ["sha256", "sha", "256"]),
    ("OAuth2Token", ["oauth2token", "auth", "token"]),
    ("userIDs", ["userids", "user", "id"]),
    ("__init__", ["init"]),
    ("isValid", ["isvalid", "valid"]),
    ("os.path.join(a, b)", ["os", "path", "join"]),
    ("src/core/retry_policy.py", ["src", "cor", "retrypolicy", "retry", "policy", "py"]),
    ("How does the Context class work?", ["context", "class", "work"]),
    ("queries of the databases", ["query", "databas"]),
    ("naïve café", ["naïve", "café"]),
    ("搜索引擎 search", ["搜索", "索引", "引擎", "search"]),
    ("ﬁle", ["fil"]),  # a ligature is normalised
    ("x = y + 1", []),
    ("the of and is", []),
    ("!?.,;:()", []),
    ("", []),
    ("a" * (TERM_CHARACTERS_MAX + 1), []),
]


@pytest.mark.parametrize(("text", "found"), TOKENS)
def test_text_becomes_terms(text: str, found: list[str]) -> None:
    assert list(tokens(text)) == found


FORMS = [
    ("parse", "parses", "parsed", "parsing"),
    ("cache", "caches", "cached", "caching"),
    ("embed", "embeds", "embedded", "embedding", "embeddings"),
    ("index", "indexes", "indexed", "indexing"),
    ("query", "queries", "queried"),
    ("class", "classes"),
    ("alias", "aliases"),
    ("database", "databases"),
    ("cancel", "cancels", "cancelled", "cancelling"),
    ("set", "setting", "settings"),
    ("run", "runs", "running"),
    ("call", "calls", "called", "calling"),
    ("process", "processes", "processed", "processing"),
    ("add", "adds", "added", "adding"),
    ("string", "strings"),
    ("url", "urls"),
]


@pytest.mark.parametrize("forms", FORMS, ids=lambda forms: forms[0])
def test_the_forms_of_a_word_have_one_stem(forms: tuple[str, ...]) -> None:
    assert len({stem(form) for form in forms}) == 1


@pytest.mark.parametrize(
    "words", [("parser", "parse"), ("string", "str"), ("need", "ne"), ("status", "stat")]
)
def test_different_words_keep_different_stems(words: tuple[str, str]) -> None:
    assert stem(words[0]) != stem(words[1])


def test_stop_words_are_no_terms_alone_but_count_inside_whole_identifiers() -> None:
    assert list(tokens(" ".join(STOP_WORDS))) == []
    assert list(tokens("isNot")) == ["isnot"]


def test_a_hash_is_the_same_in_every_process() -> None:
    assert term_hash("server") == 1238935884
    program = "from pharos_embedder.bm25 import term_hash; print(term_hash('server'))"
    other = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "77"},
    )
    assert int(other.stdout) == term_hash("server")


def test_a_document_counts_the_words_of_its_path_and_symbol() -> None:
    terms = document_terms("retry retry", path="core/retry.py", symbol="RetryPolicy")
    assert terms[term_hash("retry")] == 4
    assert terms[term_hash("policy")] == 1
    assert terms[term_hash("cor")] == 1


@given(st.text(st.sampled_from("abzABZs019__--. \n\x1cé搜索ﬁK")), st.text(), st.text("aB_- é"))
def test_the_terms_of_a_document_are_its_hashed_tokens(text: str, path: str, symbol: str) -> None:
    expected = Counter(term_hash(term) for part in (text, path, symbol) for term in tokens(part))
    assert document_terms(text, path=path, symbol=symbol) == expected


def test_words_that_were_met_are_forgotten_before_they_fill_the_memory() -> None:
    for number in range(_WORDS_KEPT_MAX + 10):
        assert document_terms(f"w{number}") == Counter(map(term_hash, tokens(f"w{number}")))
    document_terms("x" * 100_000)
    assert len(_KNOWN_WORDS) < _WORDS_KEPT_MAX
    assert max(map(len, _KNOWN_WORDS)) < 1_000


def test_a_document_vector_has_distinct_ascending_indices_and_saturates() -> None:
    vector = document_vector({9: 1, 3: int(LENGTH_TYPICAL) - 1})
    assert vector.indices == (3, 9)
    assert vector.values[0] == pytest.approx(2.2, abs=0.02)  # k1 + 1 is the most a term can give
    assert vector.values[1] == pytest.approx(1.0)  # of typical length, once


def test_a_long_document_scores_less_than_a_short_one() -> None:
    short = document_vector({1: 1, 2: 9})
    long = document_vector({1: 1, 2: 99})
    assert short.values[0] > long.values[0]


def test_an_empty_document_has_an_empty_vector() -> None:
    assert len(document_vector({})) == 0


def test_the_product_of_query_and_document_is_bm25() -> None:
    texts = ["alpha beta beta", "alpha gamma", "delta"]
    documents = [document_terms(text) for text in texts]
    lexicon = Lexicon.of(documents)
    query = query_vector("alpha beta", [lexicon])
    vector = document_vector(documents[0])
    score = sum(
        weight * dict(zip(vector.indices, vector.values, strict=True)).get(term, 0)
        for term, weight in zip(query.indices, query.values, strict=True)
    )
    norm = 1.2 * (1 - 0.75 + 0.75 * 3 / LENGTH_TYPICAL)
    alpha = log(1 + (3 - 2 + 0.5) / (2 + 0.5)) * 1 * 2.2 / (1 + norm)
    beta = log(1 + (3 - 1 + 0.5) / (1 + 0.5)) * 2 * 2.2 / (2 + norm)
    assert score == pytest.approx(alpha + beta)


def test_a_lexicon_counts_documents_and_not_occurrences() -> None:
    lexicon = Lexicon.of(iter([{1: 5, 2: 1}, {1: 1}]))
    assert lexicon.documents == 2
    assert dict(lexicon.items()) == {1: 2, 2: 1}
    assert [lexicon.frequency(term) for term in (0, 1, 2, 3, 2**32 - 1)] == [0, 2, 1, 0, 0]


def test_lexicons_of_several_datasets_are_pooled() -> None:
    one = Lexicon.from_frequencies(10, {1: 2, 2**32 - 1: 3})
    two = Lexicon.from_frequencies(30, {1: 5, 7: 1})
    whole = Lexicon.merged([one, two])
    assert whole.documents == 40
    assert dict(whole.items()) == {1: 7, 7: 1, 2**32 - 1: 3}
    assert dict(Lexicon.merged([one, two], only=[1, 8]).items()) == {1: 7}
    assert Lexicon.merged([]) == EMPTY_LEXICON


def test_a_change_says_what_some_documents_more_and_some_less_do_to_each_term() -> None:
    documents = [document_terms(text) for text in ("alpha beta", "beta gamma gamma", "delta")]
    change = LexiconChange.of(added=documents[:2], removed=documents[2:])
    alpha, beta, gamma, delta = (term_hash(word) for word in ("alpha", "beta", "gamma", "delta"))
    assert change.frequencies == {alpha: 1, beta: 2, gamma: 1, delta: -1}
    assert change.documents == 1
    assert LexiconChange.of(added=documents, removed=documents).frequencies == {}


def test_totals_follow_a_change_and_never_fall_below_nothing() -> None:
    change = LexiconChange.of(added=[{1: 3}, {2: 1}])
    assert Totals().changed(change) == Totals(2)
    assert Totals().changed(LexiconChange.of(removed=[{1: 3}])) == Totals()


def test_rare_terms_weigh_more_and_none_weighs_less_than_nothing() -> None:
    lexicon = Lexicon.from_frequencies(100, {1: 1, 2: 50, 3: 100})
    weights = [lexicon.idf(term) for term in (1, 2, 3)]
    assert weights == sorted(weights, reverse=True)
    assert min(weights) > 0
    assert lexicon.idf(999) == lexicon.idf(1)
    assert EMPTY_LEXICON.idf(1) > 0


def test_a_query_of_only_stop_words_is_empty() -> None:
    assert query_vector("what is this", [EMPTY_LEXICON]) == SparseVector(indices=(), values=())


def test_of_a_long_query_the_rarest_terms_are_kept() -> None:
    known = {term_hash("alpha"): 90, term_hash("beta"): 80, term_hash("rar"): 1}
    lexicon = Lexicon.from_frequencies(100, known)
    query = query_vector("unknown alpha beta foreign rare", [lexicon], terms_max=2)
    assert set(query.indices) == {term_hash("beta"), term_hash("rar")}


def test_matched_words_are_told_as_they_were_typed() -> None:
    assert matched_words("How are Queries cached by RetryPolicy?", "def retry(): cache = query()") == (
        "Queries",
        "cached",
        "RetryPolicy",
    )
