"""Training sparse autoencoders of a model's states."""
