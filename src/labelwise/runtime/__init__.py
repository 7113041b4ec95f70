"""How the program runs here: workers, memory, the clock, whole files."""
