"""One file for each algorithm: from tensors to the change of a weight."""
