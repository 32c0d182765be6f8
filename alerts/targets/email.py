"""E-mail through an SMTP server: text and HTML of the same, with the trace as a picture inside.

A message's id follows from the notices' ids and revisions, so that one that is sent again is the same message, and all
refer to their alerts' first, so that mail programs show an alert as one thread.
"""

from __future__ import annotations

import base64
import hashlib
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any, Final, cast

from alerts.notice import Notice
from alerts.targets.base import Outcome
from alerts.targets.document import Document
from alerts.targets.mail_page import page
from alerts.targets.settings import Email, Values
from alerts.targets.text import brief, harmless, plain, subject
from alerts.trace_plot import trace_png
from monitor.errors import ConfigError
from monitor.outgoing import is_loopback
from streams.reasons import printable

MOST_TOGETHER: Final = 50
"""Alerts that are told of in one message; of more, the number."""
LONGEST_SUBJECT: Final = 200
LONGEST_ANSWER: Final = 200
"""Characters of a server's answer that go into a reason."""
SEND_SECONDS: Final = 40.0
"""Of a whole message, from connecting on, whatever the server does: a delivery holds its lease for a minute."""
_PORTS: Final = {"starttls": 587, "tls": 465, "none": 25}
_HOST: Final = "valuedrift.invalid"
"""Right half of message ids: they have to be unique, not to lead anywhere."""
_PICTURE: Final = f"trace@{_HOST}"


class EmailTarget:
    """All notices of a send are one message.

    Parameters
    ----------
    clock : the message's date.
    """

    refresh_seconds: float | None = None

    def __init__(
        self, settings: Email, values: Values, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.name = values.name
        self.tells = frozenset({"firing", "acknowledged", "resolved"})
        self._settings = settings
        self._clock = clock
        self._host = values.text("host")
        self._port = settings.port or _PORTS[settings.security]
        self._sender = _address(values.text("sender"), values.key("sender"))
        self._recipients = [_address(r, values.key("recipients")) for r in values.texts("recipients")]
        self._username, self._password = values.text("username"), values.text("password")
        if self._username and settings.security == "none" and not is_loopback(self._host):
            raise ConfigError(
                f"{values.key('security')} is none: the password would go to {self._host} in plain text; "
                "use starttls or tls"
            )
        self._secrets = _secrets(self._username, self._password)
        self._tls = _context(settings, values)

    def send(self, notices: Sequence[Notice]) -> Sequence[Outcome]:
        """See alerts.targets.base.Target."""
        shown = [harmless(n, excerpts=self._settings.excerpts) for n in notices]
        return [self._send(message(shown, self._sender, self._recipients, self._clock()))] * len(notices)

    def send_document(self, document: Document) -> Outcome:
        """See alerts.targets.document.Carrier."""
        return self._send(document_message(document, self._sender, self._recipients, self._clock()))

    def close(self) -> None:
        """Connections live as long as a send."""

    def _send(self, mail: EmailMessage) -> Outcome:
        try:
            server = self._connected()
        except OSError as e:  # those of smtplib are OSErrors too
            return Outcome("retry", self._clean(f"no connection: {e or type(e).__name__}"), lost=True)
        try:
            return self._sent(server, mail)
        except smtplib.SMTPResponseException as e:
            return self._answered(e.smtp_code, _text(e.smtp_error))
        except smtplib.SMTPRecipientsRefused as e:
            code, said = max(e.recipients.values(), key=lambda answer: -answer[0])
            return self._answered(code, f"no recipient was taken: {_text(said)}")
        except smtplib.SMTPNotSupportedError as e:
            return Outcome("refused", self._clean(str(e)))
        except (TimeoutError, smtplib.SMTPServerDisconnected) as e:
            late = server.expired or isinstance(e, TimeoutError)
            return Outcome("retry", "no whole answer in time" if late else self._clean(f"hung up: {e}"))
        except (smtplib.SMTPException, OSError, ValueError) as e:
            return Outcome("retry", self._clean(f"{type(e).__name__}: {e}"))
        finally:
            server.close()

    def _connected(self) -> _Limited:
        timeout = self._settings.timeout_seconds
        if self._settings.security == "tls":
            return _LimitedTls(self._host, self._port, timeout=timeout, context=self._tls)
        return _Limited(self._host, self._port, timeout=timeout)

    def _sent(self, server: smtplib.SMTP, mail: EmailMessage) -> Outcome:
        if self._settings.security == "starttls":
            server.starttls(context=self._tls)
        if self._username:
            server.login(self._username, self._password)
        recipients = [r.addr_spec for r in self._recipients]
        left_out = server.send_message(mail, self._sender.addr_spec, recipients)
        with suppress(smtplib.SMTPException, OSError):
            server.quit()
        if left_out:
            return Outcome(
                "delivered", f"not to {len(left_out)} of {len(recipients)} recipients: the server refused them"
            )
        return Outcome("delivered")

    def _answered(self, code: int, text: str) -> Outcome:
        # 4xx is a server's "later", 5xx its "never"
        return Outcome("refused" if code >= 500 else "retry", self._clean(f"SMTP {code}: {text}"), lost=code < 500)

    def _clean(self, reason: str) -> str:
        for secret in self._secrets:
            reason = reason.replace(secret, "[secret]")
        return printable(reason, LONGEST_ANSWER)


class _Limited(smtplib.SMTP):
    """Hangs up SEND_SECONDS after it began to connect.

    Limits of the library are per read: a greeting or an answer of one byte at a time could last for ever.
    """

    expired = False
    _limit: threading.Timer | None = None

    def connect(self, host: str = "localhost", port: int = 0, source_address: Any = None) -> tuple[int, bytes]:
        self._limit = threading.Timer(SEND_SECONDS, self._hang_up)
        self._limit.daemon = True
        self._limit.start()
        try:
            return super().connect(host, port, source_address)
        except BaseException:
            self._limit.cancel()
            raise

    def close(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
        super().close()

    def _hang_up(self) -> None:
        self.expired = True
        with suppress(OSError):
            if self.sock is not None:
                self.sock.shutdown(socket.SHUT_RDWR)


class _LimitedTls(_Limited, smtplib.SMTP_SSL):
    """The same, with TLS from the first byte."""


def message(notices: Sequence[Notice], sender: Address, recipients: Sequence[Address], date: datetime) -> EmailMessage:
    """The message of notices that are told of together.

    Parameters
    ----------
    notices : harmless (alerts.targets.text): no header can be broken out of.
    """
    mail = EmailMessage(policy=SMTP)
    mail["Subject"] = printable(subject(notices), LONGEST_SUBJECT)
    mail["From"] = sender
    mail["To"] = list(recipients)
    mail["Date"] = format_datetime(date)
    mail["Message-ID"] = f"<{_key(notices)}@{_HOST}>"
    mail["References"] = " ".join(f"<{_token(n.id)}@{_HOST}>" for n in notices[:MOST_TOGETHER])
    # so that no absence is answered
    mail["Auto-Submitted"] = "auto-generated"
    shown, left = notices[:MOST_TOGETHER], len(notices) - MOST_TOGETHER
    more = f"\n\n... and {left} more: valuedrift alerts list" if left > 0 else ""
    mail.set_content((plain(shown[0]) if len(notices) == 1 else "\n\n".join(map(brief, shown))) + more + "\n")
    picture = trace_png(notices[0]) if len(notices) == 1 and notices[0].trace else None
    mail.add_alternative(page(shown, _PICTURE if picture else None), subtype="html")
    if picture is not None:
        html = cast(EmailMessage, next(p for p in mail.iter_parts() if p.get_content_subtype() == "html"))
        html.add_related(picture, "image", "png", cid=f"<{_PICTURE}>", filename="trace.png", disposition="inline")
    return mail


def document_message(
    document: Document, sender: Address, recipients: Sequence[Address], date: datetime
) -> EmailMessage:
    """The message of a document: its text, and its files attached."""
    mail = EmailMessage(policy=SMTP)
    mail["Subject"] = printable(document.title, LONGEST_SUBJECT)
    mail["From"] = sender
    mail["To"] = list(recipients)
    mail["Date"] = format_datetime(date)
    mail["Message-ID"] = f"<{_token(document.key)}@{_HOST}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(document.text)
    for file in document.files:
        kind, _, subtype = file.kind.partition("/")
        mail.add_attachment(file.content, kind, subtype, filename=file.name)
    return mail


def _key(notices: Sequence[Notice]) -> str:
    """The left half of a message's id."""
    pairs = [f"{_token(n.id)}.{n.revision}" for n in notices]
    return pairs[0] if len(pairs) == 1 else hashlib.blake2b("\n".join(pairs).encode(), digest_size=16).hexdigest()


def _token(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:64]


def _address(text: str, key: str) -> Address:
    """`ops@example.com`, or `Ops <ops@example.com>`. Raises ConfigError."""
    found = re.fullmatch(r"\s*(?:(?P<name>[^<>@\"\x00-\x1f]*)<)?(?P<spec>[^\s<>@\"]+@[^\s<>@\"]+)>?\s*", text)
    try:
        if found is None:
            raise ValueError
        return Address((found["name"] or "").strip(), addr_spec=found["spec"])
    except (ValueError, IndexError) as e:
        raise ConfigError(f"{key}: {printable(text, 100)!r} is not an e-mail address") from e


def _secrets(username: str, password: str) -> list[str]:
    """The password, and what of it a server is sent (AUTH PLAIN and LOGIN) and may send back."""
    sent = (f"\0{username}\0{password}", password)
    return [password, *(base64.b64encode(x.encode()).decode() for x in sent)] if password else []


def _context(settings: Email, values: Values) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=values.text("ca_file") or None)
    except (OSError, ssl.SSLError) as e:
        raise ConfigError(f"{values.key('ca_file')}: {settings.ca_file} cannot be read: {e}") from e


def _text(answer: bytes | str) -> str:
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
