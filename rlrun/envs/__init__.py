"""Envs: families as data, and the one recipe by which every role's env is built and wrapped."""
