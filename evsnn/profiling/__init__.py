"""Where time, memory and energy of a run go."""
