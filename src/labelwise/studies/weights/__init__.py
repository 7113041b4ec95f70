"""Protocols that compare methods on labelled structures."""
