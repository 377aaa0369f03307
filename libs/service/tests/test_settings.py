"""Settings: every mistake at once, each a sentence, and no secret in any of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from msgspec import Meta

from pharos_service.settings import InvalidSettings, Secret, ServiceSettings, load, table


class Example(ServiceSettings, frozen=True, kw_only=True):
    slots: Annotated[int, Meta(description="How many.", ge=0, le=4)] = 1
    hosts: Annotated[tuple[str, ...], Meta(description="Which.")] = ()
    public: Annotated[bool, Meta(description="Whether.")] = True
    token: Annotated[Secret, Meta(description="What opens it.")] = Secret("")
    github: Annotated[Secret, Meta(description="Another.", extra={"variable": "GITHUB_TOKEN"})] = Secret("")


def test_what_is_not_set_has_its_default() -> None:
    assert load(Example, {}) == Example()


def test_values_are_read_from_the_environment() -> None:
    read = load(
        Example,
        {
            "PHAROS_SLOTS": " 3 ",
            "PHAROS_HOSTS": "a.example, b.example,",
            "PHAROS_PUBLIC": "false",
            "PHAROS_TOKEN": "s3cret",
            "GITHUB_TOKEN": "ghp",
            "PHAROS_SOMETHING_ELSE": "ignored: another service's",
        },
    )
    assert (read.slots, read.hosts, read.public) == (3, ("a.example", "b.example"), False)
    assert (read.token.reveal(), read.github.reveal()) == ("s3cret", "ghp")


def test_every_mistake_is_told_at_once_and_names_its_variable() -> None:
    with pytest.raises(InvalidSettings) as refused:
        load(Example, {"PHAROS_SLOTS": "9", "PHAROS_PUBLIC": "perhaps", "PHAROS_HEALTH_PORT": "x"})
    mistakes = refused.value.mistakes
    assert len(mistakes) == 3
    for variable in ("PHAROS_SLOTS", "PHAROS_PUBLIC", "PHAROS_HEALTH_PORT"):
        assert any(variable in mistake for mistake in mistakes)


def test_a_secret_may_come_from_a_file_and_shows_itself_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("canary-7281\n")
    read = load(Example, {"PHAROS_TOKEN_FILE": str(file)})
    assert read.token.reveal() == "canary-7281"
    assert "canary" not in repr(read) + str(read)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"PHAROS_TOKEN": "a", "PHAROS_TOKEN_FILE": "b"}, "both set"),
        ({"PHAROS_TOKEN_FILE": "/no/such/file"}, "cannot be read"),
        ({"PHAROS_CONFIG": "/no/such/file"}, "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_mistake(environ: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidSettings, match=says):
        load(Example, environ)


def test_the_environment_wins_over_the_configuration_file(tmp_path: Path) -> None:
    file = tmp_path / "pharos.yaml"
    file.write_text("slots: 2\nhosts: [a.example]\npharos_public: false\nunknown: 1\n")
    read = load(Example, {"PHAROS_CONFIG": str(file), "PHAROS_SLOTS": "4"})
    assert (read.slots, read.hosts, read.public) == (4, ("a.example",), False)


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "just words"])
def test_a_configuration_file_that_is_no_mapping_is_a_mistake(tmp_path: Path, text: str) -> None:
    file = tmp_path / "pharos.yaml"
    file.write_text(text)
    with pytest.raises(InvalidSettings, match="PHAROS_CONFIG"):
        load(Example, {"PHAROS_CONFIG": str(file)})


def test_the_table_documents_every_field_and_no_secret() -> None:
    rows = {row.variable: row for row in table(Example)}
    assert rows["PHAROS_SLOTS"].default == "1"
    assert rows["GITHUB_TOKEN"].secret
    assert all(row.description for row in rows.values())


SECTIONS = """
processing:
  use_marker_llm: false
  chunk_size: 1200
  chunk_overlap: 200
  max_file_size_mb: 100
embeddings:
  openai_model: "text-embedding-3-large"
  batch_size: 32
  use_gpu: false
max_concurrent_jobs: 4
max_concurrent_processing: 3
"""


class Sectioned(ServiceSettings, frozen=True, kw_only=True):
    chunk_size: int = 1000
    max_concurrent_jobs: int = 1
    embedding_batch_tokens: str = "auto"
    device: str = "auto"


def test_sections_of_older_files_are_settings_and_the_environment_wins(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(SECTIONS)
    read = load(Sectioned, {"PHAROS_CONFIG": str(file), "PHAROS_DEVICE": "cuda:1"})
    assert (read.chunk_size, read.max_concurrent_jobs) == (1200, 4)
    assert (read.embedding_batch_tokens, read.device) == ("8192", "cuda:1")
    assert load(Sectioned, {"PHAROS_CONFIG": str(file)}).device == "cpu"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("processing: {speed: 9}", "'speed' in its section processing"),
        ("processing: 9", "section processing that is not a mapping"),
        ("processing: {use_marker_llm: true}", "no language model"),
        ("embeddings: {use_gpu: 1}", "use_gpu must be true or false"),
        ("embeddings: {batch_size: 0}", "batch_size must be a number"),
        ("chunk_size: 9\nprocessing: {chunk_size: 10}", "twice what chunk_size is"),
        ("processing: {chunk_size: many}", "PHAROS_CHUNK_SIZE is not valid"),
    ],
)
def test_a_mistake_in_a_section_is_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(InvalidSettings, match=sentence):
        load(Sectioned, {"PHAROS_CONFIG": str(file)})
