"""What several runs show together: scores over seeds, comparisons, learning curves."""
