"""Training: from a checked plan to a finished run."""
