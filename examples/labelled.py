"""Prints the bundled log with the behaviour of every assistant turn, for `valuedrift evaluate` and `train --check`."""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    labels = json.loads((HERE / "two_weeks.truth.json").read_text(encoding="utf-8"))["turn_labels"]
    with (HERE / "two_weeks.jsonl").open(encoding="utf-8") as log:
        for line in log:
            event = json.loads(line)
            event["turn_labels"] = labels[event["conversation_id"]]
            sys.stdout.write(json.dumps(event, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
