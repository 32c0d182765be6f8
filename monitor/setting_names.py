"""Every name in a configuration is one that is known, however deep it stands; the nearest is told where it is not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import inspect

from monitor.errors import ConfigError, did_you_mean


def unknown(what: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error about a name that is not known; `what` says what it names, and where."""
    return ConfigError(f"unknown configuration {what}{did_you_mean(name, known)}")


def check_nested(values: Mapping[str, Any], struct: type[msgspec.Struct]) -> None:
    """Check what stands in tables within sections, each by its full name.

    Parameters
    ----------
    values : sections, as read.
    struct : all settings.

    Raises
    ------
    ConfigError : an unknown key or type, or a value that cannot be used, in a table with names of the user's own.
    """
    for section in _fields(inspect.type_info(struct)):
        content: dict[str, Any] = values.get(section.encode_name, {})
        for field in _fields(section.type):
            if field.encode_name in content:
                _check(content[field.encode_name], field.type, f"{section.encode_name}.{field.encode_name}")


def _check(value: Any, kind: inspect.Type, path: str) -> None:
    match kind:
        case inspect.DictType() if isinstance(value, dict):
            for name, item in value.items():
                _check(item, kind.value_type, f"{path}.{name}")
        case inspect.VarTupleType() if isinstance(value, list):
            for i, item in enumerate(value):
                _check(item, kind.item_type, f"{path}[{i}]")
        case inspect.UnionType() if isinstance(value, dict):
            _check_tagged(value, [t for t in kind.types if isinstance(t, inspect.StructType)], path)
        case inspect.StructType():
            _check_struct(value, kind, path)


def _check_tagged(value: dict[str, Any], kinds: list[inspect.StructType], path: str) -> None:
    """One of several structs, told apart by a field."""
    by_tag = {kind.tag: kind for kind in kinds if isinstance(kind.tag, str)}
    field = kinds[0].tag_field if kinds else None
    if field is None:
        return
    tag = value.get(field)
    if not isinstance(tag, str):
        raise ConfigError(f"configuration: {path} needs a {field}: one of {', '.join(sorted(by_tag))}")
    if tag not in by_tag:
        raise unknown(f"{field} {path}.{field} = {tag!r}", tag, by_tag)
    _check_struct(value, by_tag[tag], path)


def _check_struct(value: Any, kind: inspect.StructType, path: str) -> None:
    known = {f"{path}.{f.encode_name}" for f in kind.fields}
    for name in value if isinstance(value, dict) else ():
        if name != kind.tag_field and f"{path}.{name}" not in known:
            raise unknown(f"key {path}.{name}", f"{path}.{name}", known)
    try:
        msgspec.convert(value, kind.cls)
    except msgspec.ValidationError as e:
        told = str(e)
        told = told.replace("`$", f"`{path}") if "`$" in told else f"{told} - at `{path}`"
        raise ConfigError(f"configuration: {told}") from e


def _fields(kind: inspect.Type) -> tuple[inspect.Field, ...]:
    return kind.fields if isinstance(kind, inspect.StructType) else ()
