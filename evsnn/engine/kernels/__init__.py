"""The machine's side: numba kernels that know addresses and integers only.

``vector``     the vector type: a numba value that is one wide LLVM vector, and its operations
``memory``     loads, stores and bit tricks on raw addresses
``jit``        the decorator all kernels share
``queue``      spike masks -> event queues, and counts of both
``current``    the analog input's current, once a sample
``fire``       a constant current alone -> membranes -> spike masks
``maxpool``    spike masks -> spike masks of windows' largest counts
``integrate``  event queues and masks -> membranes -> spike masks: the loop where the time goes

Kernels allocate nothing, raise nothing and check nothing: every address and index they see was
made by `evsnn.engine.plan`, which has checked it. Their arguments are *descriptors*, blocks of int64 whose
fields are named by constants beside each kernel.

Spikes between layers are masks, uint64 ``[n_steps, height, width, words]``: bit c % 64 of word
c // 64 is channel c. Before a layer they become an event queue: ids ``column * channels + channel``
in (step, row, column, channel) order, and int32 pointers ``[n_steps * height * width + 1]``, so
that the horizontal channelwise weights of a kernel row are one contiguous run of events.
"""
