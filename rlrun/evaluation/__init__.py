"""Evaluating an agent, and what can be said of its returns."""
