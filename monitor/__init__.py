"""The core: what is measured, kept and shown.

Data flows  transcript -> engine -> buckets -> trajectory (baseline, detectors, entropy, drift) -> store, summary, plot.
Everything but `store`, `watch` and `cli` is pure: no clock, no unseeded randomness, no I/O.
"""
