"""Machine unlearning on image models: train, unlearn and audit whole populations."""
