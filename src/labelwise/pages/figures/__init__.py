"""Pages of results as figures for print."""
