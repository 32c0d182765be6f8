"""What PagerDuty and Slack document of what they take, as JSON schemas: our reading of their references."""

from __future__ import annotations

from typing import Any, Final

from jsonschema import Draft202012Validator, FormatChecker

_LINK: Final = {
    "type": "object",
    "required": ["href"],
    "properties": {"href": {"type": "string", "pattern": "^https?://"}, "text": {"type": "string"}},
    "additionalProperties": False,
}
PAGERDUTY_EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["routing_key", "event_action", "dedup_key"],
    "properties": {
        "routing_key": {"type": "string", "minLength": 32, "maxLength": 32},
        "event_action": {"enum": ["trigger", "acknowledge", "resolve"]},
        "dedup_key": {"type": "string", "minLength": 1, "maxLength": 255},
        "client": {"type": "string"},
        "client_url": {"type": "string", "pattern": "^https?://"},
        "links": {"type": "array", "items": _LINK},
        "payload": {
            "type": "object",
            "required": ["summary", "severity", "source"],
            "properties": {
                "summary": {"type": "string", "minLength": 1, "maxLength": 1024},
                "severity": {"enum": ["critical", "error", "warning", "info"]},
                "source": {"type": "string", "minLength": 1},
                "timestamp": {"type": "string", "format": "date-time"},
                "component": {"type": "string"},
                "group": {"type": "string"},
                "class": {"type": "string"},
                "custom_details": {"type": "object"},
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
    "if": {"properties": {"event_action": {"const": "trigger"}}},
    "then": {"required": ["payload"]},
}


def _text(kinds: list[str], limit: int) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["type", "text"],
        "properties": {
            "type": {"enum": kinds},
            "text": {"type": "string", "minLength": 1, "maxLength": limit},
            "emoji": {"type": "boolean"},
            "verbatim": {"type": "boolean"},
        },
        "additionalProperties": False,
        # each of the two is of one kind of text only
        "allOf": [
            {"if": {"properties": {"type": {"const": "mrkdwn"}}}, "then": {"not": {"required": ["emoji"]}}},
            {"if": {"properties": {"type": {"const": "plain_text"}}}, "then": {"not": {"required": ["verbatim"]}}},
        ],
    }


_BOTH: Final = ["plain_text", "mrkdwn"]
SLACK_MESSAGE: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["text", "blocks"],
    "properties": {
        "text": {"type": "string", "minLength": 1, "maxLength": 40000},
        "mrkdwn": {"type": "boolean"},
        "unfurl_links": {"type": "boolean"},
        "unfurl_media": {"type": "boolean"},
        "blocks": {
            "type": "array",
            "minItems": 1,
            "maxItems": 50,
            "items": {
                "oneOf": [
                    {
                        "properties": {"type": {"const": "header"}, "text": _text(["plain_text"], 150)},
                        "required": ["type", "text"],
                        "additionalProperties": False,
                    },
                    {
                        "properties": {
                            "type": {"const": "section"},
                            "text": _text(_BOTH, 3000),
                            "fields": {"type": "array", "minItems": 1, "maxItems": 10, "items": _text(_BOTH, 2000)},
                        },
                        "required": ["type"],
                        "anyOf": [{"required": ["text"]}, {"required": ["fields"]}],
                        "additionalProperties": False,
                    },
                    {
                        "properties": {
                            "type": {"const": "context"},
                            "elements": {"type": "array", "minItems": 1, "maxItems": 10, "items": _text(_BOTH, 3000)},
                        },
                        "required": ["type", "elements"],
                        "additionalProperties": False,
                    },
                    {
                        "properties": {"type": {"const": "divider"}},
                        "required": ["type"],
                        "additionalProperties": False,
                    },
                ]
            },
        },
    },
    "additionalProperties": False,
}


def check(schema: dict[str, Any], value: Any) -> None:
    """Raises jsonschema.ValidationError where a value is not of the shape."""
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(value)
