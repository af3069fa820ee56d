"""What happens to the selected weights, and how it is tried and undone."""
