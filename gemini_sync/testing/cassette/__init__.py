"""Cassettes: files of recorded exchanges."""
