"""Bias and language-modelling scores. Each separates reading the data, scoring with the model, and the arithmetic."""
