"""A program as C: descriptors, tables and the header."""
