"""What stages write and kernels read: the slots of jobs, one module a kernel module. Needs no numba."""
