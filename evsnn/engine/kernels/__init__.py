"""The compiled part: numba kernels, which know addresses and integers only.

``vector``     the vector type: a numba value that is one wide LLVM vector, and its operations
``memory``     loads, stores and bit operations on raw addresses
``jit``        the decorator of all kernels
``queue``      spike masks -> event queues, and counts of both
``current``    the analog input's current, once per sample
``fire``       a constant current alone -> membranes -> spike masks
``maxpool``    spike masks -> spike masks of the largest count of each window
``integrate``  event queues and masks -> membranes -> spike masks: the loop that takes most of the time

Kernels allocate nothing, raise nothing and check nothing: every address and index that they see was made by
`evsnn.engine.plan` from checked shapes. Their arguments are *descriptors*, blocks of int64 fields, which the
modules of ``descriptors`` name.

Spikes between layers are masks, uint64 ``[n_steps, height, width, words]``: bit c % 64 of word c // 64 is
channel c. Before a layer they become an event queue: ids ``column * channels + channel`` in (step, row,
column, channel) order, and int32 pointers ``[n_steps * height * width + 1]``. So the events that a kernel row
covers are one contiguous run.
"""
