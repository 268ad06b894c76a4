"""The passages that `ssd2 evaluate documents` reads are those that the agent reads of the same files."""

from __future__ import annotations

from ssd2.evaluation.documents.questions import FILES, read_documents
from user_agent.documents.formats import sections
from user_agent.documents.formats.section import cut
from user_agent.documents.passage import told_in_order
from user_agent.documents.reader import passage_of


def test_the_stored_passages_are_what_the_reader_cuts() -> None:
    read = {
        file.name: tuple(told_in_order(passage_of(one, file) for one in cut(sections(file.read_bytes(), file.suffix))))
        for file in FILES.iterdir()
    }
    assert read == read_documents()
