"""Making a small CLIP for machines that reach no model hub, with a bias of known size and origin."""
