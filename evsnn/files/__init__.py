"""Files: weights files and the gate before them, HDF5, arrays and images of samples."""
