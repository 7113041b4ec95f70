"""Fitting a potential to labelled structures."""
