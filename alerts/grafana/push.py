"""What there is here, made so in a Grafana: each thing is looked up, and created or changed only where it differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlsplit

import requests
from grafana_api.grafana_api import GrafanaClientError, GrafanaException
from grafana_api.grafana_face import GrafanaFace

from alerts.grafana.dashboards import FOLDER_TITLE, FOLDER_UID, dashboards
from alerts.grafana.files import DATASOURCE_NAME
from alerts.grafana.marks import TAG, Mark
from alerts.grafana.panels import DATASOURCE_UID, Json
from monitor.errors import ConfigError, ValueDriftError
from monitor.outgoing import is_loopback
from streams.reasons import printable

TIMEOUT_SECONDS: Final = 15.0
LONGEST_ANSWER: Final = 200
"""Characters of what Grafana says that are passed on."""
_ADVICE: Final = {
    401: "it does not take the token: make one under Administration > Service accounts",
    403: "the token may not do this: data sources need the role Admin, the rest Editor",
    404: "there is no such thing there: check that --url is Grafana's address, with the path it is served at",
    409: "it has one like it under another uid: delete or rename that one, and push again",
    412: "it was changed meanwhile, or has one of that name: push again, or rename that one",
}


class GrafanaError(ValueDriftError):
    """A Grafana that cannot be reached, or refuses."""

    exit_code = 3


@dataclass(slots=True)
class Pushed:
    """What became of each thing: its name under what was done."""

    created: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)


def connect(url: str, token: str, *, allow_http: bool = False) -> GrafanaFace:
    """A client of the Grafana at this address.

    Raises
    ------
    ConfigError : the address is none, holds a user or a query, or is plain http to another machine and that is not
        allowed; the token cannot be sent.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or parts.username is not None:
        raise ConfigError("--url must be an address such as https://grafana.example.com or https://example.com/grafana")
    if parts.scheme == "http" and not is_loopback(host) and not allow_http:
        raise ConfigError(
            "--url is plain http:// to another machine, where anyone on the way reads the token; use https://, or "
            "allow it with --allow-http"
        )
    if not token.isascii() or not token.isprintable() or not token or " " in token:
        raise ConfigError("the token is empty or holds characters that no token has; set it again")
    path = parts.path.strip("/")
    client = GrafanaFace(
        auth=token,
        host=f"[{host}]" if ":" in host else host,
        port=port,
        protocol=parts.scheme,
        url_path_prefix=f"{path}/" if path else "",
        timeout=TIMEOUT_SECONDS,
    )
    client.api.s.max_redirects = 0  # the token goes to no other address
    client.api.s.trust_env = not is_loopback(host)  # proxies and certificates of the environment, not for this machine
    return client


def push(
    client: GrafanaFace, datasource: Json, password: str | None, marks: Sequence[Mark], *, renew: bool = False
) -> Pushed:
    """Create or change the data source, the folder, the dashboards and the annotations.

    Parameters
    ----------
    datasource : alerts.grafana.files.datasource.
    password : of its user; None: as Grafana has it.
    renew : send the password also where nothing else differs: Grafana does not say which one it has.

    Raises
    ------
    ConfigError : Grafana needs a password that is not given.
    GrafanaError : Grafana cannot be reached, or refuses; what was done before stays, and is found by the next push.
    """
    done = Pushed()
    _push_datasource(client, datasource, password, renew, done)
    _push_folder(client, done)
    for dashboard in dashboards():
        _push_dashboard(client, dashboard, done)
    for mark in marks:
        _push_mark(client, mark, done)
    return done


def _push_datasource(client: GrafanaFace, wanted: Json, password: str | None, renew: bool, done: Pushed) -> None:
    what = f"data source {DATASOURCE_NAME}"
    at = f"/datasources/uid/{DATASOURCE_UID}"
    have = _found(what, lambda: client.api.GET(at))
    has_password = have is not None and bool((have.get("secureJsonFields") or {}).get("password"))
    if have is not None and has_password and not renew and holds(have, wanted):
        done.unchanged.append(what)
        return
    if password is None and not has_password:
        raise ConfigError(
            f"{what}: Grafana has no password for it; put that of the role {printable(str(wanted['user']), 80)} into "
            "an environment variable and name it with --password-env"
        )
    secret = {} if password is None else {"secureJsonData": {"password": password}}
    with _told(what, secrets=(password,)):
        if have is None:
            client.datasource.create_datasource(wanted | secret)
        else:
            client.api.PUT(at, json=wanted | secret)
    (done.created if have is None else done.changed).append(what)


def _push_folder(client: GrafanaFace, done: Pushed) -> None:
    what = f"folder {FOLDER_TITLE}"
    have = _found(what, lambda: client.folder.get_folder(FOLDER_UID))
    with _told(what):
        if have is None:
            client.folder.create_folder(FOLDER_TITLE, FOLDER_UID)
            done.created.append(what)
        elif have.get("title") != FOLDER_TITLE:
            client.folder.update_folder(FOLDER_UID, FOLDER_TITLE, overwrite=True)
            done.changed.append(what)
        else:
            done.unchanged.append(what)


def _push_dashboard(client: GrafanaFace, wanted: Json, done: Pushed) -> None:
    what = f"dashboard {wanted['title']}"
    have = _found(what, lambda: client.dashboard.get_dashboard(wanted["uid"]))
    if have is not None:
        in_folder = (have.get("meta") or {}).get("folderUid") == FOLDER_UID
        if in_folder and holds(have.get("dashboard"), wanted):
            done.unchanged.append(what)
            return
    with _told(what):
        client.dashboard.update_dashboard(
            {"dashboard": wanted, "folderUid": FOLDER_UID, "overwrite": True, "message": "valuedrift grafana push"}
        )
    (done.created if have is None else done.changed).append(what)


def _push_mark(client: GrafanaFace, mark: Mark, done: Pushed) -> None:
    what, values = f"annotation {mark.key}", mark.values()
    with _told(what):
        found = client.annotations.get_annotation(tags=[TAG, quote(mark.key, safe="")], limit=100)
        if not isinstance(found, list):
            raise ValueError("its answer is no list")
        # the lowest number is the one that stays, whoever pushed at the same time
        have = sorted((a for a in found if mark.key in a.get("tags", ())), key=lambda a: int(a["id"]))
        for extra in have[1:]:
            client.annotations.delete_annotations_by_id(int(extra["id"]))
            done.removed.append(what)
        times = {"time_from": values["time"], "time_to": values["timeEnd"]}
        if not have:
            client.annotations.add_annotation(**times, tags=values["tags"], text=values["text"])
            done.created.append(what)
        elif sorted(have[0]["tags"]) != sorted(values["tags"]) or any(
            have[0].get(k) != values[k] for k in ("time", "timeEnd", "text")
        ):
            client.annotations.update_annotation(int(have[0]["id"]), **times, tags=values["tags"], text=values["text"])
            done.changed.append(what)
        else:
            done.unchanged.append(what)


def holds(have: Any, wanted: Any) -> bool:
    """Whether everything that is wanted is there; Grafana adds fields of its own.

    >>> holds({"a": [{"b": 1, "id": 7}], "version": 3}, {"a": [{"b": 1}]})
    True
    """
    if isinstance(wanted, Mapping):
        return isinstance(have, Mapping) and all(k in have and holds(have[k], v) for k, v in wanted.items())
    if isinstance(wanted, list | tuple):
        return isinstance(have, list) and len(have) == len(wanted) and all(map(holds, have, wanted))
    return bool(have == wanted)


def _found(what: str, get: Callable[[], Any]) -> Mapping[str, Any] | None:
    """The answer; None where Grafana says itself that it has no such thing."""
    with _told(what):
        try:
            answer = get()
        except GrafanaClientError as e:
            if e.status_code == 404 and isinstance(e.response, Mapping) and "message" in e.response:
                return None
            raise
        if not isinstance(answer, Mapping):
            raise ValueError("its answer is no object")
        return answer


@contextmanager
def _told(what: str, secrets: Sequence[str | None] = ()) -> Iterator[None]:
    """Every failure as one line: what, what Grafana said of it, and what to do."""
    try:
        yield
    except GrafanaException as e:
        said = e.response.get("message", "") if isinstance(e.response, Mapping) else ""
        said = printable(_without(str(said), secrets), LONGEST_ANSWER)
        advice = _ADVICE.get(e.status_code, "")
        if e.status_code >= 500:
            advice = "its log says why; push again when it is well"
        parts = [f"Grafana answers {e.status_code}", *([said] if said else []), *([advice] if advice else [])]
        raise GrafanaError(f"{what}: {'; '.join(parts)}") from None
    except requests.TooManyRedirects:
        raise GrafanaError(f"{what}: Grafana sends to another address; give that one with --url") from None
    except (requests.ConnectionError, requests.Timeout):
        text = f"Grafana does not answer within {TIMEOUT_SECONDS:g} s; check --url, and that it is up"
        raise GrafanaError(f"{what}: {text}") from None
    except (requests.RequestException, ValueError, TypeError, KeyError, AttributeError):
        # the client reads answers without checking them
        raise GrafanaError(f"{what}: the answer is not one of Grafana's; check --url") from None


def _without(text: str, secrets: Sequence[str | None]) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return text
