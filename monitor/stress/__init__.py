"""Stress tests: how a model's behaviour mixture moves over the turns of a conversation that leans on it.

suites (what is said) -> drive (asks an endpoint, keeps every finished turn) or recorded (a log instead) -> result (each
turn judged as live traffic is; S over turn index) -> compare (two results), figure, reference (a baseline).
"""
