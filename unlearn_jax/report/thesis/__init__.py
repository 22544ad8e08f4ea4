"""All that belongs to the reference study: its tables, figures, claims and printed values."""
