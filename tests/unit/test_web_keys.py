"""API keys and rates: who may write, how much."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import ConfigError
from monitor.web.keys import Keys, load
from monitor.web.limits import Held, Rate
from monitor.web.refusals import Refused

KEY = "sixteen-characters-and-more"


def of(text: str) -> Keys:
    return load(None, "K", {"K": text})


def test_variable_is_emptied() -> None:
    """The environment does not keep the keys, and the object holds no key."""
    environment = {"K": f"a {KEY}", "PATH": "/bin"}
    keys = load(None, "K", environment)
    assert environment == {"PATH": "/bin"}
    assert KEY not in repr(vars(keys))
    assert keys.find(KEY.encode()) is not None


def test_file_and_variable(tmp_path: Path) -> None:
    """Keys of both are let in; comments and blank lines are none; quotes keep a deployment together."""
    digest = hashlib.sha256(b"hashed-key-hashed-key").hexdigest()
    path = tmp_path / "keys"
    path.write_text(f"# keys\n\na {KEY}1 'shop eu' bank # mine\nb sha256:{digest.upper()}\n", encoding="utf-8")
    keys = load(path, "K", {"K": f" c {KEY}2 ; "})
    first, second, third = (keys.find(k) for k in (f"{KEY}1".encode(), b"hashed-key-hashed-key", f"{KEY}2".encode()))
    assert first is not None
    assert first.deployments == {"shop eu", "bank"}
    assert first.deployment is None
    assert second is not None
    assert (second.name, second.deployments) == ("b", frozenset())
    assert third is not None
    assert keys.find(digest.encode()) is None, "the hash itself opens nothing"
    only = of(f"a {KEY} shop").find(KEY.encode())
    assert only is not None
    assert only.deployment == "shop"


def test_mark_of_on_call() -> None:
    """A key marked +oncall looks after alerts, of the deployments that follow; no other mark is known."""
    keys = of(f"pager {KEY}1 +oncall shop +shop; app {KEY}2 shop")
    pager, app = keys.find(f"{KEY}1".encode()), keys.find(f"{KEY}2".encode())
    assert pager is not None
    assert (pager.oncall, pager.deployments) == (True, {"shop", "+shop"})
    assert app is not None
    assert not app.oncall
    with pytest.raises(ConfigError, match=r"\+oncal is no mark of a key; there is \+oncall"):
        of(f"pager {KEY} +oncal shop")


@given(st.binary(max_size=40))
def test_no_other_key(presented: bytes) -> None:
    """Nothing but the key itself opens."""
    assert (of(f"a {KEY}").find(presented) is not None) == (presented == KEY.encode())


@pytest.mark.parametrize("text", ["a", "a short-key", f"a '{KEY}", f"a {KEY}; a {KEY}x", f"a {KEY}; b {KEY}"])
def test_refused(text: str) -> None:
    """What can be no key is told, and not shown."""
    with pytest.raises(ConfigError) as e:
        of(text)
    assert KEY not in str(e.value)
    assert "short-key" not in str(e.value)


def test_no_file(tmp_path: Path) -> None:
    """A file of keys that is not there must not mean that anybody is let in."""
    with pytest.raises(ConfigError):
        load(tmp_path / "none", "K", {})


def test_rate() -> None:
    """A key may spend what it saved up, gets through with a debt, waits for it, and never saves more than its burst."""
    now = [0.0]
    rate = Rate(10, 5, lambda: now[0])
    rate.check("a")
    rate.charge("a", 80)  # 30 in debt
    with pytest.raises(Refused) as e:
        rate.check("a")
    assert (e.value.status, e.value.headers) == (429, {"retry-after": "4"})
    rate.check("b")
    now[0] = 4
    rate.check("a")
    now[0] = 10_000
    rate.charge("a", 50)
    with pytest.raises(Refused):
        rate.check("a")


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 30)), max_size=60))
def test_rate_holds(steps: list[tuple[float, int]]) -> None:
    """However requests are spread, a key gets no more than rate x time + burst + the one request that made the debt."""
    now = [0.0]
    rate = Rate(10, 5, lambda: now[0])
    let_in = 0
    for wait, size in steps:
        now[0] += wait
        try:
            rate.check("a")
        except Refused:
            continue
        rate.charge("a", size)
        let_in += size
        assert let_in <= 10 * now[0] + 50 + 30 + 1e-6


def test_no_rate() -> None:
    """0 is no limit."""
    rate = Rate(0, 60)
    rate.charge("a", 10**9)
    rate.check("a")


def test_held() -> None:
    """What does not fit is refused for now, and fits when other requests are done."""
    held = Held(100, 2)
    held.take(80)
    with pytest.raises(Refused) as e:
        held.take(21)
    assert (e.value.status, e.value.headers) == (503, {"retry-after": "2"})
    held.give_back(80)
    held.take(100)
    assert held.bytes == 100
