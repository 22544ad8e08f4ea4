"""Speed, measured side by side with the alternatives; see BENCHMARKS.md."""
