"""The fields of descriptors, which runners write and kernels read: one module per module of kernels."""
