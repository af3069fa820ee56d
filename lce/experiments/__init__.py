"""Studies: many trainings and edits as cells of one sweep, the statistics over them, and the report."""
