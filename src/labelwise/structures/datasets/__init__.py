"""Published data sets: read as a stream, checked, and made into pools."""
