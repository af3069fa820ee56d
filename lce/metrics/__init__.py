"""Bias and language-modelling scores. Each keeps apart reading the data, scoring with the model, the arithmetic."""
