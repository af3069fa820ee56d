"""Pictures with a table of what they show: the drawn ones of the default, and folders of one's own."""
