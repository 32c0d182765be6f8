"""The weekly drift report: gather (database -> ReportData), judge and decompose (pure), render (HTML, PDF, MD, JSON).

All that a rendering says is in ReportData, which is kept: last year's report is rendered again from it, byte for byte.
"""
