"""A matrix of runs: cells from a file, engines that run them, one comparison at the end."""
