"""Saved results, as one page that shows what was chosen and why."""
