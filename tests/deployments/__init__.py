"""Situations from real deployments, each on the real server."""
