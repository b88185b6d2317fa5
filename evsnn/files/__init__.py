"""Files: weights files, the gate that checks them, HDF5, and files of arrays and images."""
