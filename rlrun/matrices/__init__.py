"""Configs x seeds from one YAML file, to a table and a report."""
