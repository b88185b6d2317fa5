"""HDF5 files, read without the HDF5 library and written with it.

The library was not made for files from strangers: a few changed bytes in a file's metadata make it write
outside its memory. So what is read is taken apart here, in Python, where the worst is an exception. What
is understood is what h5py makes of groups, attributes and arrays of numbers or fixed-length strings;
links to elsewhere, virtual and external storage and types with pointers are not, and cannot be followed.

``source`` gives checked bytes, ``messages`` and ``indexes`` say what they mean, ``objects`` puts them
together, ``writer`` writes. Names follow the HDF5 File Format Specification, version 4.0:
https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t4.html
"""
