from __future__ import annotations

import pytest

from pharos_contracts.resources.v1 import RESOURCES_LABEL, resource_identity
from pharos_gateway.document_ingest import _uploaded
from pharos_gateway.resources import resource_id
from pharos_gateway.uploads import Upload
from pharos_sources.web_content import file_name


@pytest.mark.parametrize("named", ["{}", "texts/{}", "texts\\{}", "../resources/texts/{}"])
def test_no_file_of_somebody_else_takes_the_place_of_a_resource(named: str) -> None:
    """Sent as a document from ``resources``, it is one of the same dataset."""
    theirs = resource_id("acme", "alice", "https://h.example/")
    upload = Upload(
        object_name="o", filename=file_name(named.format(theirs)), media_type="text/plain", size=1, sha256="0"
    )
    document = _uploaded(RESOURCES_LABEL, upload.filename, upload)
    assert document.identity != resource_identity(theirs)
