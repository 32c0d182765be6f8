"""Where transcripts come from: files, directories and standard input, and the log formats they are written in.

Data flows  bytes -> `files` (lines with their position) -> `formats` (checked events, or dead letters with a reason)
-> `sampling` (which of them are judged). `redaction` stands before all that stores or logs a text.
"""
