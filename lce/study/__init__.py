"""Studies: many trainings and edits as cells of one sweep."""
