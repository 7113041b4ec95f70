"""Whether kernels know where a model errs, and what they tell apart."""
