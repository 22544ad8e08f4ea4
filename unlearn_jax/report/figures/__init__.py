"""Pictures of the report, drawn with matplotlib."""
