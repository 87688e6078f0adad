"""Floor 0: arrays without gradients — devices, dtypes, random numbers, matrix products and fused kernels."""
