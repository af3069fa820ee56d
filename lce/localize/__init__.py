"""Where two models differ: selections, and random baselines for them."""
