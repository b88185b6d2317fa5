"""Compilers and emulators: does the C compute what Python computes, and what does it take?"""
