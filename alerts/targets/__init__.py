"""Where alerts go: each target turns notices (alerts.notice) into its own protocol and sends them, and keeps nothing.

alerts.delivery hands a target what is due and writes down what became of it.
"""
