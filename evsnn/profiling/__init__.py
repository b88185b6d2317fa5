"""Where the time, memory and energy of a run go."""
