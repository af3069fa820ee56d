"""Models of transformers: loading by kind, their layers, and logits at chosen positions."""
