"""Speed, measured side by side with what one would use instead; see BENCHMARKS.md."""
