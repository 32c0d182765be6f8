"""What is sent beside notices: a document, such as the weekly report, to targets that can carry one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from alerts.targets.base import Outcome


@dataclass(frozen=True, slots=True)
class File:
    """An attachment; `kind` is a media type such as text/html."""

    name: str
    kind: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Document:
    """A document in the forms that targets take; texts hold no secrets, but strangers wrote parts of them.

    Attributes
    ----------
    key : tells what was sent twice.
    title, text : of a message; of one line, and plain.
    files : to attach to it.
    json : the same for machines.
    """

    key: str
    title: str
    text: str
    files: tuple[File, ...]
    json: bytes = field(repr=False)


class Carrier(Protocol):
    """A target that takes documents."""

    def send_document(self, document: Document) -> Outcome:
        """What became of it; nothing is raised."""
        ...
