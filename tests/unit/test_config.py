"""Settings: file, environment and options in this order, and every mistake named with its nearest neighbour."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.baseline import BaselineRule
from monitor.config import Config, Monitor, load
from monitor.errors import ConfigError


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "valuedrift.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_no_file(write: Any) -> None:
    """Without any configuration there is SQLite in the working directory and a promise of 90 days."""
    config = load(None, {})
    assert config == Config()
    assert config.store.url == "sqlite:///valuedrift.db"
    assert config.trajectory().false_alarm_every_days == 90
    assert config.baseline_rule() == BaselineRule(turns=300, hours=24.0)


def test_default_file(write: Any) -> None:
    """valuedrift.toml in the working directory is read without being named."""
    write('[store]\nurl = "sqlite:///here.db"\n[input]\nseries_by = ["route", "tenant"]\nmax_series = 7\n')
    config = load(None, {})
    assert config.store.url == "sqlite:///here.db"
    assert config.input.series_by == ("route", "tenant")
    assert config.input.max_series == 7
    assert config.monitor == Monitor()


def test_precedence(write: Any) -> None:
    """Defaults give way to the file, the file to the environment, the environment to options."""
    write('[monitor]\nbaseline = "111"\nfalse_alarm_every = "11d"\nmin_window_turns = 11\n')
    env = {"VALUEDRIFT_MONITOR_BASELINE": "222", "VALUEDRIFT_MONITOR_FALSE_ALARM_EVERY": "22d", "HOME": "/x"}
    options = {("monitor", "baseline"): "333", ("monitor", "false_alarm_every"): None, ("store", "url"): None}
    m = load(None, env, options).monitor
    assert (m.baseline, m.false_alarm_every, m.min_window_turns) == ("333", "22d", 11)
    assert m.trend_cell_turns == Monitor().trend_cell_turns


def test_which_file(write: Any) -> None:
    """A file named on the command line wins over VALUEDRIFT_CONFIG, and that over the default file."""
    write('[input]\ndeployment = "default"')
    by_env = write('[input]\ndeployment = "env"', "env.toml")
    by_option = write('[input]\ndeployment = "option"', "option.toml")
    env = {"VALUEDRIFT_CONFIG": str(by_env)}
    assert load(None, {}).input.deployment == "default"
    assert load(None, env).input.deployment == "env"
    assert load(by_option, env).input.deployment == "option"


def test_missing_file(write: Any, tmp_path: Path) -> None:
    """A file that was named but is not there is an error; a missing default file is not."""
    with pytest.raises(ConfigError, match=r"nothing\.toml does not exist"):
        load(tmp_path / "nothing.toml", {})
    with pytest.raises(ConfigError, match=r"gone\.toml does not exist"):
        load(None, {"VALUEDRIFT_CONFIG": "gone.toml"})


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[monitor]\nbasline = 3", r"key monitor\.basline; did you mean monitor\.baseline\?"),
        ('[input]\nfromat = "auto"', r"key input\.fromat; did you mean input\.format\?"),
        ("[moniter]\n", r"section \[moniter\]; did you mean monitor\?"),
        ("zzz = 1", r"section \[zzz\]; did you mean"),
        ("monitor = 3", r"monitor is a section, write \[monitor\]"),
        ('[input]\nmax_series = "many"', r"Expected `int`, got `str` - at `input\.max_series`"),
        ("[store]\nurl = 5", r"Expected `str`, got `int` - at `store\.url`"),
        ('[input]\nseries_by = "route"', r"Expected `array`, got `str` - at `input\.series_by`"),
        ("[input]\nmax_series = true", r"Expected `int`, got `bool`"),
        ("[input\n", "cannot be read"),
    ],
)
def test_mistakes_in_the_file(write: Any, toml: str, message: str) -> None:
    """A mistake in the file says what is wrong, where, and what was probably meant."""
    write(toml)
    with pytest.raises(ConfigError, match=message):
        load(None, {})


def test_file_of_bytes(write: Any, tmp_path: Path) -> None:
    """A file that is no text, or a folder, is an error that names it."""
    (tmp_path / "valuedrift.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"valuedrift\.toml cannot be read"):
        load(None, {})
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path, {})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("VALUEDRIFT_MONITOR_BASELIN", "3", "VALUEDRIFT_MONITOR_BASELIN; did you mean VALUEDRIFT_MONITOR_BASELINE"),
        ("VALUEDRIFT_STORE_URI", "x", "did you mean VALUEDRIFT_STORE_URL"),
        ("VALUEDRIFT_CONFIGURATION", "x", "did you mean"),
        ("VALUEDRIFT_INPUT_MAX_SERIES", "many", "VALUEDRIFT_INPUT_MAX_SERIES='many': Expected `int`"),
        ("VALUEDRIFT_INPUT_FUTURE_TOLERANCE_MINUTES", "soon", "Expected `float`"),
    ],
)
def test_mistakes_in_the_environment(write: Any, name: str, value: str, message: str) -> None:
    """A misspelt or mistyped variable is named, and not passed over in silence."""
    with pytest.raises(ConfigError, match=message):
        load(None, {name: value})


def test_environment_types(write: Any) -> None:
    """Variables are text, and become numbers and lists where the key is one."""
    env = {
        "VALUEDRIFT_INPUT_MAX_SERIES": "12",
        "VALUEDRIFT_INPUT_SERIES_BY": "route,tenant",
        "VALUEDRIFT_INPUT_FUTURE_TOLERANCE_MINUTES": "2.5",
        "VALUEDRIFT_TEST_DATABASE": "not a setting",
        "OTHER": "1",
    }
    i = load(None, env).input
    assert (i.max_series, i.series_by, i.future_tolerance_minutes) == (12, ("route", "tenant"), 2.5)
    assert load(None, {"VALUEDRIFT_INPUT_SERIES_BY": ""}).input.series_by == ()


def test_option_mistakes(write: Any) -> None:
    """An option of the wrong type or name is an error too."""
    with pytest.raises(ConfigError, match=r"at `monitor\.min_window_turns`"):
        load(None, {}, {("monitor", "min_window_turns"): "x"})
    with pytest.raises(ConfigError, match="nothing"):
        load(None, {}, {("monitor", "nothing"): 1})


@pytest.mark.parametrize(
    ("text", "days"), [("90d", 90), ("24h", 1), ("36h", 1.5), ("1.5d", 1.5), (" 7 d ", 7), ("1d", 1)]
)
def test_false_alarm_every(text: str, days: float) -> None:
    """The promise is written in days or hours."""
    assert Config(monitor=Monitor(false_alarm_every=text)).trajectory().false_alarm_every_days == days


@pytest.mark.parametrize("text", ["", "90", "0d", "23h", "-3d", "90w", "1e3d", "nan d", "infd", "90d 3h", "d"])
def test_false_alarm_every_refused(text: str) -> None:
    """A promise that cannot be read or kept is refused, with an example of one that can."""
    with pytest.raises(ConfigError, match=r"false_alarm_every .* must be a day or more, such as 90d"):
        Config(monitor=Monitor(false_alarm_every=text)).trajectory()


@pytest.mark.parametrize("field", ["min_window_turns", "trend_cell_turns"])
def test_least_turns(field: str) -> None:
    """A window of no turns cannot be asked for."""
    with pytest.raises(ConfigError, match="must be 1 or more"):
        Config(monitor=msgspec.structs.replace(Monitor(), **{field: 0})).trajectory()
    assert getattr(Config(monitor=msgspec.structs.replace(Monitor(), **{field: 1})).trajectory(), field) == 1


@given(st.text(alphabet="ABCDEFGHIJ_", max_size=20))
def test_any_variable(tail: str) -> None:
    """Whatever a VALUEDRIFT_ variable is called, it is a setting or an error."""
    with pytest.raises(ConfigError, match="did you mean VALUEDRIFT_"):
        load(None, {f"VALUEDRIFT_{tail}": "1"})
