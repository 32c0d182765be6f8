"""What every target does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from alerts.notice import Notice

Result = Literal["delivered", "retry", "refused"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a notice.

    Attributes
    ----------
    result : delivered; retry: it may go through later; refused: never (a 4xx, a bad address), so it is not tried again.
    reason : for people, without secrets and without what the other side sent beyond a bounded, printable excerpt.
    retry_after_seconds : what the other side asked for; None where it did not.
    lost : retry only: it surely did not arrive (nobody took the connection, or it was answered with a refusal); False:
        it may have, so the end of the alert is told too.
    """

    result: Result
    reason: str = ""
    retry_after_seconds: float | None = None
    lost: bool = False


class Target(Protocol):
    """Somewhere to send notices to. Sending again what was sent before is harmless: it has the same id.

    Attributes
    ----------
    name : as configured.
    refresh_seconds : a notice that stands is to be sent again so often (Alertmanager forgets what is not); None: never.
    tells : which statuses it wants; others count as delivered.
    """

    @property
    def name(self) -> str: ...

    @property
    def refresh_seconds(self) -> float | None: ...

    @property
    def tells(self) -> frozenset[str]: ...

    def send(self, notices: Sequence[Notice]) -> Sequence[Outcome]:
        """Send notices that are due together (of one group); one outcome for each, in their order. Never raises."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
