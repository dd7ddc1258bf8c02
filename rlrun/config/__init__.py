"""The config: its schema, how it is read, and where shipped ones lie. Imports no torch."""
