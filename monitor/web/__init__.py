"""Transcripts in over HTTP, and how the process is doing out.

Data flows  request -> `door` (accounts, deadlines) -> `keys`, `limits` (may it?) -> `bodies` (bytes -> items) ->
`committer` (one thread: judge, one transaction) -> the answer. Beside it `monitor.ticker` moves the series on.
"""
