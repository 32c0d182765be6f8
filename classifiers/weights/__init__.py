"""The shipped weights and their model card."""
