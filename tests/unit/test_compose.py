"""docker-compose.yml: no engine runs here, so every name in it is held against the code it names."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from compose_spec import PyCompose

from alerts.targets.settings import build
from monitor import config as configuration
from monitor.cli import cli

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, s in SERVICES.items() if "build" in s)
SECRETS = re.findall(r"^([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)


def test_it_follows_the_compose_specification() -> None:
    """The parser of the specification takes it whole, and refuses it with a key misspelt."""
    assert PyCompose.from_yaml(yaml.safe_dump(COMPOSE)).service_names()
    wrong = COMPOSE | {"services": SERVICES | {"worker": SERVICES["worker"] | {"helthcheck": {}}}}
    with pytest.raises(ValueError, match="helthcheck"):
        PyCompose.from_yaml(yaml.safe_dump(wrong))


@pytest.mark.parametrize("name", OURS)
def test_commands_are_commands_of_ours(name: str) -> None:
    """Each service's command can be parsed by the command line it is given to."""
    arguments = list(SERVICES[name]["command"])
    command: click.Command = cli
    while isinstance(command, click.Group):
        word = arguments.pop(0)
        assert word in command.commands
        command = command.commands[word]
    command.make_context(name, arguments)


@pytest.mark.parametrize("name", OURS)
def test_settings_are_settings(name: str, tmp_path: Path) -> None:
    """Every VALUEDRIFT_ variable of a service is taken as a setting, with its value."""
    environment = {k: re.sub(r"\$\{\w+:\?[^}]*\}", "x", v) for k, v in SERVICES[name]["environment"].items()}
    nothing = tmp_path / "valuedrift.toml"
    nothing.touch()
    config = configuration.load(nothing, environment)
    if "VALUEDRIFT_STORE_URL" in environment:
        assert config.store.url == environment["VALUEDRIFT_STORE_URL"]
    targets = [build(target, settings, environment) for target, settings in config.alerts.targets.items()]
    assert len(targets) == environment.get("VALUEDRIFT_ALERTS_TARGETS", "").count('"type"'), "or it ends as it begins"


def test_ports_are_where_the_code_listens() -> None:
    """What is published, asked for health and connected to is where it listens."""
    config = configuration.Config()
    assert SERVICES["serve"]["ports"] == [f"127.0.0.1:{config.serve.port}:{config.serve.port}"]
    assert f":{config.serve.port}/healthz" in SERVICES["serve"]["healthcheck"]["test"][-1]
    assert SERVICES["worker"]["expose"] == [str(config.worker.metrics_port)]
    assert f":{config.worker.metrics_port}/metrics" in SERVICES["worker"]["healthcheck"]["test"][-1]


def test_nothing_listens_beyond_the_machine_it_runs_on() -> None:
    """Ports are published on loopback alone."""
    published = [port for s in SERVICES.values() for port in s.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_secrets_have_no_defaults() -> None:
    """Every password is asked for by name and refused when empty; the example names each and sets none."""
    asked = set(re.findall(r"\$\{(\w+)(:\?[^}]+)?\}", (ROOT / "docker-compose.yml").read_text()))
    assert all(refused for _, refused in asked)
    assert {name for name, _ in asked} == {name for name, _ in SECRETS}
    assert [value for _, value in SECRETS] == [""] * len(SECRETS)


def test_images_are_pinned() -> None:
    """No image goes by `latest` or by no tag at all; the Dockerfile's neither, and it does not end as root."""
    images = [s["image"] for s in SERVICES.values()]
    dockerfile = (ROOT / "Dockerfile").read_text()
    images += re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert all(re.search(r":v?\d+\.\d+", image) for image in images)
    assert re.findall(r"^USER (\S+)", dockerfile, re.MULTILINE)[-1] != "root"


def test_what_is_mounted_or_copied_is_there() -> None:
    """Every file of ours that a service mounts, and that the image copies, exists; named volumes are declared."""
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./") and source != "./logs":
                assert (ROOT / source).exists(), source
            elif not source.startswith("./"):
                assert source in COMPOSE["volumes"]
    for line in re.findall(r"^COPY (?!--from)(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split()[:-1])


def test_services_wait_for_services_that_are_there() -> None:
    """Whoever is waited for exists, has a health check where that is waited for, and ends where its end is."""
    for service in SERVICES.values():
        for name, how in service.get("depends_on", {}).items():
            assert how["condition"] != "service_healthy" or "healthcheck" in SERVICES[name]
            finished = how["condition"] == "service_completed_successfully"
            assert finished == (SERVICES[name]["restart"] == "on-failure")


def test_the_image_has_the_extras_its_commands_need() -> None:
    """The Dockerfile installs extras that pyproject.toml has."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.search(r"'\.\[([\w,]+)\]'", (ROOT / "Dockerfile").read_text())
    assert named is not None
    assert set(named[1].split(",")) <= set(extras)


def test_the_roles_script_is_a_shell_script() -> None:
    """It parses, and names the variables that its service gives it."""
    script = ROOT / "docker" / "roles.sh"
    subprocess.run(["sh", "-n", str(script)], check=True, env=os.environ)
    given = SERVICES["roles"]["environment"]
    assert set(re.findall(r"\\getenv \w+ (\w+)", script.read_text())) <= set(given)
