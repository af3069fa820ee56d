"""Local contrastive editing: find the few weights that carry a bias, and edit just those."""
