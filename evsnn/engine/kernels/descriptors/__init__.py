"""What runners write and kernels read: the fields of descriptors, one module a kernel module. Needs no
numba.
"""
