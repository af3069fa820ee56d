"""Iterative magnitude pruning: the subnetwork of each variant."""
