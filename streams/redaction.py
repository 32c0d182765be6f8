"""Personal data and secrets out of a text, before it is stored or logged.

Each built-in pattern reads a text in time proportional to its length, whatever the text is: it starts only where a run
of its characters starts, takes runs possessively, and looks ahead at most a bounded way. Patterns of the user run in
RE2, which has no backtracking. What is not a fixed shape is verified: cards by Luhn's checksum, IBANs by the length of
their country and mod 97, IPv6 addresses by parsing, tokens after words like "password" by holding a digit.

Numbers of telephones are known by their shape: international ones (+49 ..., 0049 ...), North American ones, and
national ones that begin with 0. No library of the world's numbering plans is used: it would cost 30 MB and find more
numbers than were meant.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import re2

from monitor.errors import ConfigError

MARGIN: Final = 1 << 16
"""Characters beyond an excerpt that are redacted with it, so that nothing is cut before it is recognised."""
ROUNDS: Final = 4
"""A mark can lay open what stood unseparated beside it: at most so many passes, until nothing changes."""
MAX_PATTERN: Final = 1000
"""Longest pattern of the user, in characters."""

Match = re.Match[str]

_IBAN_LENGTHS: Final = {
    country: int(length)
    for country, length in re.findall(
        r"([A-Z]{2})(\d\d)",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 "
        "EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 "
        "IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 "
        "NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 "
        "SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30 ",
    )
}
"""Characters of an IBAN, by country (ISO 13616 registry)."""

_MARK: Final = re.compile(r"\[[a-z][a-z0-9 -]{0,30}\]")
_PEM: Final = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:[^-]|-(?!----END))*+(?:-----END [A-Z0-9 ]{0,60}-----)?"
)
_JWT: Final = re.compile(r"(?<![\w-])eyJ[\w-]{8,}+(?:\.[\w-]*+){1,4}")
_KEY: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-|[sr]k_(?:live|test)_|gh[opsur]_|github_pat_|glpat-|xox[abeprs]-|xapp-|A[KS]IA|AIza|ya29\."
    r"|hf_|npm_|pypi-|gsk_|xai-|r8_|SG\.|shp(?:at|ca|pa|ss)_|dop_v1_|AGE-SECRET-KEY-1|whsec_|lin_api_|figd_|nvapi-"
    r"|pplx-|tgp_v1_|ops_ey|v1\.0-|hvs\.)(?P<rest>[\w.~+/=-]++)"
)
_URL: Final = re.compile(r"(?<=://)(?P<user>[^\s/:@\[\]]*+):(?P<password>[^\s/@]++)(?=@)")
_WORD: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:api[_ -]?key|access[_ -]?key|secret[_ -]?key|private[_ -]?key|client[_ -]?secret|secret|key"
    r"|(?:access|auth|refresh|session|bearer|id)[_ -]?token|token|bearer|basic|passw(?:or)?d|passphrase|passcode|pwd"
    r"|pin|otp|credentials?|authorization)(?![A-Za-z0-9])[\"']?\s{0,4}+(?:is\b|was\b|[:=]+>?|=>)?\s{0,4}+[\"'`]?",
    re.I,
)
_VALUE: Final = re.compile(r"[^\s\"'`<>,;()\[\]{}]++")
_EMAIL: Final = re.compile(
    r"(?<![\w.!#$%&'*+/=?^`{|}~-])[\w.!#$%&'*+/=?^`{|}~-]++@(?:[\w-]{1,63}\.){1,10}[^\W\d_][\w-]{1,62}"
)
_IBAN: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,30}")
_IPV4: Final = re.compile(
    r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?!\.?\d)"
)
_IPV6: Final = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]++(?![\w])")
_CARD: Final = re.compile(
    r"(?<![\d.])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|\d{4}([ -])\d{6}\2\d{4,5}"
    r"|[2-6](?:[ .-]?\d){12,18})(?!\d)"
)
_PHONE: Final = re.compile(
    r"(?<![\w+])(?:\+|00)[ ]?\(?[1-9](?:[ ().\-/\u00a0\u2011]{0,2}\d)*+"
    r"|(?<![\w.+-])(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?![\w-])"
    r"|(?<![\w.,+:-])\(?0\d{1,5}\)?[ /.-]{1,3}\d(?:[ .-]?\d){4,10}(?!\d)"
)
_DATE: Final = re.compile(r"\d{1,2}[ ./-]\d{1,2}[ ./-]\d{4}")


class Redactor:
    """Replaces what is personal or secret by marks like `[e-mail]`, always the same for the same text.

    What is redacted once stays as it is when redacted again.

    Parameters
    ----------
    patterns : more to redact, the name of the mark -> a regular expression in RE2's syntax.

    Raises
    ------
    ConfigError : a name or a pattern that cannot be used.

    Examples
    --------
    >>> Redactor({"customer": r"\\bC-[0-9]{6}\\b"}).redact("C-123456 wrote from a@example.org")
    '[customer] wrote from [e-mail]'
    """

    def __init__(self, patterns: Mapping[str, str] | None = None) -> None:
        self._own = [(f"[{name}]", _compiled(name, pattern)) for name, pattern in (patterns or {}).items()]

    def redact(self, text: str) -> str:
        """The text with marks in it."""
        for _ in range(ROUNDS):
            before, text = text, self._pass(text)
            if text == before:
                break
        return text

    def excerpt(self, text: str, limit: int) -> str:
        """The beginning of the redacted text, at most `limit` characters, ending in an ellipsis where more follows."""
        redacted = self.redact(text[: limit + MARGIN])
        if len(redacted) <= limit and len(text) <= limit + MARGIN:
            return redacted
        end = max(0, limit - 1)
        for mark in _MARK.finditer(redacted, max(0, end - 40), end + 40):
            if mark.start() < end < mark.end():
                end = mark.start()
        return redacted[:end] + "…" if limit > 0 else ""

    def _pass(self, text: str) -> str:
        for mark, pattern in self._own:
            text = _between_marks(text, lambda part, p=pattern, m=mark: p.sub(m, part))  # type: ignore[misc]
        text = _PEM.sub("[secret]", text) if "PRIVATE KEY" in text else text
        text = _JWT.sub("[secret]", text) if "eyJ" in text else text
        text = _KEY.sub(_key, text)
        text = _URL.sub(_password, text) if "://" in text else text
        text = _values(text)
        text = _EMAIL.sub("[e-mail]", text) if "@" in text else text
        text = _again(_IBAN, _iban, text)
        text = _IPV4.sub("[ip]", text)
        text = _IPV6.sub(_ipv6, text) if ":" in text else text
        text = _again(_CARD, _card, text)
        return _PHONE.sub(_phone, text)


def _compiled(name: str, pattern: str) -> Any:
    where = f"redaction pattern {name!r}"
    if not _MARK.fullmatch(f"[{name}]"):
        raise ConfigError(f"{where}: a name is 1 to 31 lower-case letters, digits, spaces and hyphens")
    if len(pattern) > MAX_PATTERN:
        raise ConfigError(f"{where}: {len(pattern):,} characters are over the limit of {MAX_PATTERN:,}")
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as e:
        reason = e.args[0].decode(errors="replace") if e.args and isinstance(e.args[0], bytes) else str(e)
        raise ConfigError(f"{where}: {reason} (RE2's syntax has no look-around and no back-references)") from e
    if compiled.search("") is not None:
        raise ConfigError(f"{where}: it matches nothing at all, everywhere")
    return compiled


def _between_marks(text: str, change: Callable[[str], str]) -> str:
    """`change` what stands between the marks, so that no pattern takes a mark for text."""
    out, at = [], 0
    for mark in _MARK.finditer(text):
        out += [change(text[at : mark.start()]), mark[0]]
        at = mark.end()
    return "".join([*out, change(text[at:])]) if out else change(text)


def _again(pattern: re.Pattern[str], verified: Callable[[Match], tuple[str, int] | None], text: str) -> str:
    """Like `sub`, but what is not verified is looked at again from its next character.

    A match is bounded in length, so is the looking again.
    """
    out, done, at = [], 0, 0
    while found := pattern.search(text, at):
        if (mark := verified(found)) is None:
            at = found.start() + 1
            continue
        out += [text[done : found.start()], mark[0]]
        done = at = found.start() + mark[1]
    return "".join([*out, text[done:]]) if out else text


def _key(found: Match) -> str:
    rest = found["rest"]
    return "[secret]" if len(rest) >= 16 and any(c.isdigit() for c in rest) else found[0]


def _password(found: Match) -> str:
    return f"{found['user']}:[secret]"


def _values(text: str) -> str:
    """What follows a word for a secret, if it holds a digit: a sentence about passwords is left alone."""
    out, done, plain_until = [], 0, 0
    for word in _WORD.finditer(text):
        if word.end() < max(done, plain_until) or (value := _VALUE.match(text, word.end())) is None:
            continue
        if len(value[0]) < 6 or not any(c.isdigit() for c in value[0]):
            plain_until = value.end()  # nor does any end of it
            continue
        out += [text[done : value.start()], "[secret]"]
        done = value.end()
    return "".join([*out, text[done:]]) if out else text


def _iban(found: Match) -> tuple[str, int] | None:
    size = _IBAN_LENGTHS.get(found[0][:2].upper(), 0)
    taken = ""
    for i, c in enumerate(found[0]):
        taken += c if c not in " -" else ""
        if len(taken) == size:
            rest = found.string[found.start() + i + 1 : found.start() + i + 2]
            whole = not (rest.isascii() and rest.isalnum())
            digits = "".join(str(int(c, 36)) for c in taken[4:] + taken[:4])
            return ("[iban]", i + 1) if whole and int(digits) % 97 == 1 else None
    return None


def _ipv6(found: Match) -> str:
    text = found[0]
    address = text.rstrip(":") if text.endswith(":") and not text.endswith("::") else text
    if address.count(":") < 2 or len(address) < 3:
        return text
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return text
    return "[ip]" + text[len(address) :]


def _card(found: Match) -> tuple[str, int] | None:
    digits = [int(c) for c in found[0] if c.isdecimal()]
    doubled = (sum(divmod(2 * d, 10)) for d in digits[-2::-2])
    ok = digits[0] in range(2, 7) and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 and any(digits)
    return ("[card]", len(found[0])) if ok else None


def _phone(found: Match) -> str:
    digits = sum(c.isdecimal() for c in found[0])
    return found[0] if digits < 8 or (found[0][0] not in "+(" and _DATE.match(found[0])) else "[phone]"


_DEFAULT: Final = Redactor()


def redact(text: str) -> str:
    """The text with the built-in patterns redacted."""
    return _DEFAULT.redact(text)


def excerpt(text: str, limit: int) -> str:
    """The beginning of a text, redacted before it is cut."""
    return _DEFAULT.excerpt(text, limit)
