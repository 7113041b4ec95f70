"""Data sets as such: what stands for them, what is double, how they are split."""
