"""Logs of OpenAI's chat and text completions, and of the many servers that speak the same protocol."""

from __future__ import annotations

from streams.checks import LabelValue
from streams.conversation import RawMessage, raw_messages
from streams.exchange import Exchange, no_answer
from streams.reasons import BadEvent


def read(x: Exchange) -> tuple[list[RawMessage], dict[str, LabelValue]]:
    """Messages with the answer last. Of several choices the one with index 0 is taken, and a label tells how many."""
    asked, prompt = x.request.get("messages"), x.request.get("prompt")
    if asked is None and isinstance(prompt, str):  # text completions
        asked = [{"role": "user", "content": prompt}]
    messages = raw_messages(asked, "request.messages")
    choices = (x.response or {}).get("choices")
    if not isinstance(choices, list) or not choices:
        raise no_answer(x)
    if not all(isinstance(c, dict) for c in choices):
        raise BadEvent("response.choices holds something that is no object")
    chosen = next((c for c in choices if c.get("index") == 0), choices[0])
    message = chosen.get("message")
    if message is None and isinstance(chosen.get("text"), str):
        message = {"content": chosen["text"]}
    if not isinstance(message, dict):
        raise no_answer(x)
    answer = raw_messages([{**message, "role": "assistant"}], "response.choices")
    labels: dict[str, LabelValue] = {"choices": len(choices)} if len(choices) > 1 else {}
    return [*messages, *answer], labels
